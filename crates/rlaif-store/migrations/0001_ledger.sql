-- The ledger of one run. Two kinds of table:
--   bought   requests, replies: what was asked of paid judges and what came back. Rows are never deleted.
--   derived  everything else: can be dropped and computed again for nothing but time.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL                     -- JSON
) WITHOUT ROWID;

CREATE TABLE prompts (
    seq       INTEGER PRIMARY KEY,          -- order of the user's files
    id        TEXT NOT NULL UNIQUE,
    split     TEXT NOT NULL CHECK (split IN ('train', 'eval')),
    prompt    TEXT NOT NULL,                -- JSON: text or messages
    tags      TEXT NOT NULL,                -- JSON array
    reference TEXT,
    set_aside TEXT                          -- why no stage uses it, such as longer than the context
);

CREATE TABLE responses (
    seq           INTEGER PRIMARY KEY,
    id            TEXT NOT NULL UNIQUE,
    policy        TEXT NOT NULL,            -- 'baseline', 'ppo', 'dpo'
    prompt_id     TEXT NOT NULL REFERENCES prompts (id) ON DELETE CASCADE,
    idx           INTEGER NOT NULL,
    text          TEXT NOT NULL,
    token_ids     BLOB NOT NULL,            -- little-endian u32
    logprobs      BLOB NOT NULL,            -- little-endian f32, as many as token_ids
    finish_reason TEXT NOT NULL CHECK (finish_reason IN ('stop', 'length')),
    UNIQUE (policy, prompt_id, idx)
);
CREATE INDEX responses_by_prompt ON responses (prompt_id);

CREATE TABLE pairs (
    seq       INTEGER PRIMARY KEY,
    id        TEXT NOT NULL UNIQUE,
    pair_set  TEXT NOT NULL,                -- 'train', or the name of a comparison of policies such as 'ppo'
    prompt_id TEXT NOT NULL REFERENCES prompts (id) ON DELETE CASCADE,
    a         TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
    b         TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
    UNIQUE (pair_set, a, b),
    CHECK (a <> b)
);
CREATE INDEX pairs_by_prompt ON pairs (prompt_id);
CREATE INDEX pairs_by_a ON pairs (a);
CREATE INDEX pairs_by_b ON pairs (b);

CREATE TABLE dropped_pairs (                -- too near to be worth a judge's time
    a        TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
    b        TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
    distance REAL NOT NULL,
    PRIMARY KEY (a, b)
) WITHOUT ROWID;
CREATE INDEX dropped_pairs_by_b ON dropped_pairs (b);

CREATE TABLE requests (
    request_key   TEXT PRIMARY KEY,         -- hash of endpoint, model, canonical body and vote
    judge         TEXT NOT NULL,
    body          TEXT NOT NULL,            -- canonical JSON, as sent
    state         TEXT NOT NULL CHECK (state IN ('planned', 'sent', 'received', 'judged', 'failed')),
    attempts      INTEGER NOT NULL DEFAULT 0,
    lost_sends    INTEGER NOT NULL DEFAULT 0, -- sent and never heard of again: possibly billed
    failure_class TEXT,
    failure       TEXT,
    planned_at    TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')),
    sent_at       TEXT
) WITHOUT ROWID;
CREATE INDEX requests_by_state ON requests (state, judge);

CREATE TABLE replies (
    id                INTEGER PRIMARY KEY,
    request_key       TEXT NOT NULL REFERENCES requests (request_key),
    attempt           INTEGER NOT NULL,
    http_status       INTEGER NOT NULL,
    raw               BLOB NOT NULL,        -- the body, byte for byte
    received_at       TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')),
    prompt_tokens     INTEGER,              -- usage is read from raw, later: NULL until then, or where there is none
    cached_tokens     INTEGER,
    completion_tokens INTEGER,
    reasoning_tokens  INTEGER,
    cost_micro_usd    INTEGER               -- NULL is unknown, which is not zero
);
CREATE INDEX replies_by_request ON replies (request_key);

CREATE TABLE presentations (                -- a pair in one order, to one judge, for one vote
    pair_id     TEXT NOT NULL REFERENCES pairs (id) ON DELETE CASCADE,
    judge       TEXT NOT NULL,
    shown       TEXT NOT NULL CHECK (shown IN ('ab', 'ba')),
    vote        INTEGER NOT NULL,
    request_key TEXT NOT NULL REFERENCES requests (request_key),
    PRIMARY KEY (pair_id, judge, shown, vote)
) WITHOUT ROWID;
CREATE INDEX presentations_by_request ON presentations (request_key);

CREATE TABLE verdicts (
    pair_id TEXT NOT NULL REFERENCES pairs (id) ON DELETE CASCADE,
    judge   TEXT NOT NULL,
    shown   TEXT NOT NULL CHECK (shown IN ('ab', 'ba')),
    vote    INTEGER NOT NULL,
    parser  TEXT NOT NULL,                  -- version of what read the reply
    verdict TEXT NOT NULL,                  -- JSON
    PRIMARY KEY (pair_id, judge, shown, vote)
) WITHOUT ROWID;

CREATE TABLE scores (                       -- one number a response: contrastive judges, the reward model
    judge       TEXT NOT NULL,
    response_id TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
    score       REAL NOT NULL,
    PRIMARY KEY (judge, response_id)
) WITHOUT ROWID;
CREATE INDEX scores_by_response ON scores (response_id);

CREATE TABLE preferences (
    pair_id     TEXT PRIMARY KEY REFERENCES pairs (id) ON DELETE CASCADE,
    p           REAL CHECK (p BETWEEN 0 AND 1),
    spread      REAL,
    fate        TEXT NOT NULL,
    judges      TEXT NOT NULL,              -- JSON array
    explanation TEXT
) WITHOUT ROWID;
