-- Sending at scale. Requests become small rows in the order of planning, with their bodies beside them, so that a change of state
-- touches little. Every attempt has a row: what became of it and what it counts for in the budget. Totals are kept, so that a
-- restart need not add up a million rows.

CREATE TABLE leased_requests (
    seq               INTEGER PRIMARY KEY,  -- order of planning: both orders of a pair stand together
    request_key       TEXT NOT NULL UNIQUE, -- hash of endpoint, model, canonical body and vote
    judge             TEXT NOT NULL,
    asks_again        INTEGER REFERENCES requests (seq), -- the request whose reply was no use and whose place this one takes
    prompt_tokens_max INTEGER NOT NULL,     -- with max_tokens the worst case that the budget reserves
    max_tokens        INTEGER NOT NULL,
    state             TEXT NOT NULL CHECK (state IN ('planned', 'sent', 'received', 'judged', 'failed')),
    attempts          INTEGER NOT NULL DEFAULT 0, -- sends so far; the newest one's number is the fence
    retries           INTEGER NOT NULL DEFAULT 0, -- sends beyond the first, since it was last planned
    resends           INTEGER NOT NULL DEFAULT 0, -- of its sends those that were possibly billed, since it was last planned
    lost_sends        INTEGER NOT NULL DEFAULT 0, -- of all its sends those that were possibly billed
    first_sent_ms     INTEGER,              -- when it was first sent since it was last planned; ms since 1970
    not_before_ms     INTEGER,              -- parked: not to be sent before; ms since 1970
    failure_class     TEXT,
    failure           TEXT,
    planned_at        TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ'))
);
INSERT INTO leased_requests (seq, request_key, judge, prompt_tokens_max, max_tokens, state, attempts, lost_sends, failure_class,
                             failure, planned_at)
    SELECT seq, request_key, judge, prompt_tokens_max, max_tokens, state, attempts, lost_sends, failure_class, failure, planned_at
    FROM requests ORDER BY seq;

CREATE TABLE request_bodies (
    seq  INTEGER PRIMARY KEY REFERENCES requests (seq) ON DELETE CASCADE,
    body TEXT NOT NULL                      -- as sent
);
INSERT INTO request_bodies SELECT seq, body FROM requests ORDER BY seq;

CREATE TABLE attempts (
    request     INTEGER NOT NULL REFERENCES requests (seq),
    attempt     INTEGER NOT NULL,           -- from 1
    stage       TEXT NOT NULL,              -- 'label', 'evaluate': whose money it is
    session     INTEGER NOT NULL,           -- which opening of the ledger sent it
    -- NULL while in flight and while its reply is unread
    class       TEXT CHECK (class IN ('not_sent', 'rejected', 'maybe_billed', 'billed_bad', 'billed_good')),
    kind        TEXT,                       -- in a word: 'timeout', 'rate_limited', 'truncated'
    message     TEXT,
    http_status INTEGER,
    model       TEXT,                       -- who answered, by its own word
    reserved    INTEGER,                    -- the most it can cost; NULL if the price is unknown. All money in micro-dollars
    charged     INTEGER,                    -- what the budget counts for it; NULL while in flight, or if the price is unknown
    sent_ms     INTEGER,
    ended_ms    INTEGER,
    PRIMARY KEY (request, attempt)
) WITHOUT ROWID;
INSERT OR IGNORE INTO attempts (request, attempt, stage, session, class, http_status, charged)
    SELECT q.seq, y.attempt, 'label', 0, 'billed_good', y.http_status, y.cost_micro_usd
    FROM replies y JOIN requests q USING (request_key) ORDER BY y.id;

CREATE TABLE charges (                      -- the sum of attempts.charged, kept with every change of it
    stage   TEXT NOT NULL,
    judge   TEXT NOT NULL,
    charged INTEGER NOT NULL,
    PRIMARY KEY (stage, judge)
) WITHOUT ROWID;
INSERT INTO charges
    SELECT t.stage, q.judge, coalesce(sum(t.charged), 0) FROM attempts t JOIN requests q ON q.seq = t.request GROUP BY 1, 2;

CREATE TABLE plans (                        -- what need not be planned again
    judge       TEXT NOT NULL,
    pair_set    TEXT NOT NULL,
    fingerprint TEXT NOT NULL,              -- of all that the requests depend on
    requests    INTEGER NOT NULL,
    PRIMARY KEY (judge, pair_set)
) WITHOUT ROWID;
-- Pairs that are gone take their presentations with them: what was planned of them is not whole any more.
CREATE TRIGGER plans_end_with_their_pairs AFTER DELETE ON pairs
BEGIN
    DELETE FROM plans WHERE pair_set = old.pair_set;
END;

CREATE TABLE leased_replies (
    id                INTEGER PRIMARY KEY,
    request           INTEGER NOT NULL REFERENCES requests (seq),
    attempt           INTEGER NOT NULL,
    http_status       INTEGER NOT NULL,
    raw               BLOB NOT NULL,        -- the body, byte for byte
    received_at       TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')),
    prompt_tokens     INTEGER,              -- usage and cost are read from raw: NULL until then, or where there is none
    cached_tokens     INTEGER,
    cache_write_tokens INTEGER,             -- written to the provider's cache for as long as it keeps them by default
    cache_write_1h_tokens INTEGER,          -- written to it for an hour
    completion_tokens INTEGER,
    reasoning_tokens  INTEGER,
    tier              TEXT,                 -- 'standard', 'batch', 'flex', 'priority', 'other'
    cost_micro_usd    INTEGER               -- NULL is unknown, which is not zero
);
INSERT INTO leased_replies (id, request, attempt, http_status, raw, received_at, prompt_tokens, cached_tokens, completion_tokens,
                            reasoning_tokens, cost_micro_usd)
    SELECT y.id, q.seq, y.attempt, y.http_status, y.raw, y.received_at, y.prompt_tokens, y.cached_tokens, y.completion_tokens,
           y.reasoning_tokens, y.cost_micro_usd
    FROM replies y JOIN requests q USING (request_key) ORDER BY y.id;

DROP TABLE replies;
DROP TABLE requests;
ALTER TABLE leased_requests RENAME TO requests;
ALTER TABLE leased_replies RENAME TO replies;

CREATE INDEX requests_to_send ON requests (judge, seq, state, not_before_ms)
    WHERE state = 'planned' AND not_before_ms IS NULL;
CREATE INDEX requests_parked ON requests (judge, not_before_ms, seq, state)
    WHERE state = 'planned' AND not_before_ms IS NOT NULL;
CREATE INDEX requests_by_state ON requests (state, judge);
CREATE INDEX requests_lost ON requests (seq) WHERE lost_sends > 0;
CREATE UNIQUE INDEX requests_asking_again ON requests (asks_again) WHERE asks_again IS NOT NULL;
CREATE INDEX replies_by_request ON replies (request);
CREATE INDEX attempts_of_no_use ON attempts (request) WHERE class = 'billed_bad';
