-- Batches: the same requests at half the price, answered within a day by the provider, or by whoever is given a file of them. A request
-- joins a batch by a claim like that of a single call: an attempt. It is 'sent' until the batch has ended, and its worst case counts
-- in attempts.charged, and so in charges, until its result has come.

CREATE TABLE batches (
    name        TEXT PRIMARY KEY,           -- ours
    judge       TEXT NOT NULL,
    stage       TEXT NOT NULL,              -- whose money it is
    account     TEXT,                       -- who pays the provider: a hash of endpoint and key; NULL for one that went out as a file
    requests    INTEGER NOT NULL,           -- how many it has
    waiting     INTEGER NOT NULL,           -- and how many of them have no result yet: kept, since a batch may have 100,000
    intended_ms INTEGER NOT NULL,           -- ms since 1970
    -- 'intended': nothing was made. 'creating': the call that makes it was about to be sent. 'made': it is at the provider, or in a file
    state       TEXT NOT NULL CHECK (state IN ('intended', 'creating', 'made', 'ended', 'forgotten')),
    provider_id TEXT,                       -- its name at the provider
    word        TEXT,                       -- the provider's last word for its state
    problem     TEXT,                       -- why it failed, in the provider's words
    ended_ms    INTEGER                     -- NULL while it is open
) WITHOUT ROWID;
CREATE INDEX batches_open ON batches (judge, intended_ms) WHERE ended_ms IS NULL;

CREATE TABLE batch_items (
    request   INTEGER NOT NULL,
    attempt   INTEGER NOT NULL,
    custom_id TEXT NOT NULL UNIQUE,         -- its name in the batch and in the results
    batch     TEXT NOT NULL REFERENCES batches (name),
    PRIMARY KEY (request, attempt),
    FOREIGN KEY (request, attempt) REFERENCES attempts (request, attempt)
) WITHOUT ROWID;
CREATE INDEX batch_items_of_a_batch ON batch_items (batch);
