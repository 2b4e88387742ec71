-- A judge may be asked through several templates, and a template may take several steps (explanation, then verdict). Requests are
-- numbered in the order of planning, so that they can be sent page by page.

CREATE TABLE numbered_requests (
    request_key       TEXT PRIMARY KEY,     -- hash of endpoint, model, canonical body and vote
    seq               INTEGER NOT NULL,     -- order of planning: both orders of a pair stand together
    judge             TEXT NOT NULL,
    body              TEXT NOT NULL,        -- as sent
    prompt_tokens_max INTEGER NOT NULL,     -- with max_tokens the worst case that the budget reserves
    max_tokens        INTEGER NOT NULL,
    state             TEXT NOT NULL CHECK (state IN ('planned', 'sent', 'received', 'judged', 'failed')),
    attempts          INTEGER NOT NULL DEFAULT 0,
    lost_sends        INTEGER NOT NULL DEFAULT 0, -- sent and never heard of again: possibly billed
    failure_class     TEXT,
    failure           TEXT,
    planned_at        TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')),
    sent_at           TEXT
) WITHOUT ROWID;
INSERT INTO numbered_requests
    SELECT request_key, row_number() OVER (ORDER BY planned_at, request_key), judge, body, length(CAST(body AS BLOB)), 0, state,
           attempts, lost_sends, failure_class, failure, planned_at, sent_at
    FROM requests;

CREATE TABLE template_presentations (
    pair_id     TEXT NOT NULL REFERENCES pairs (id) ON DELETE CASCADE,
    judge       TEXT NOT NULL,
    template    TEXT NOT NULL,
    shown       TEXT NOT NULL CHECK (shown IN ('ab', 'ba')),
    vote        INTEGER NOT NULL,
    step        INTEGER NOT NULL,
    final       INTEGER NOT NULL,           -- 1 where the reply holds the verdict, 0 where a later step builds on it
    request_key TEXT NOT NULL REFERENCES requests (request_key),
    PRIMARY KEY (pair_id, judge, template, shown, vote, step)
) WITHOUT ROWID;
INSERT INTO template_presentations SELECT pair_id, judge, 'explain', shown, vote, 0, 1, request_key FROM presentations;

CREATE TABLE template_verdicts (
    pair_id  TEXT NOT NULL REFERENCES pairs (id) ON DELETE CASCADE,
    judge    TEXT NOT NULL,
    template TEXT NOT NULL,
    shown    TEXT NOT NULL CHECK (shown IN ('ab', 'ba')),
    vote     INTEGER NOT NULL,
    parser   TEXT NOT NULL,                 -- version of what read the reply
    verdict  TEXT NOT NULL,                 -- JSON
    PRIMARY KEY (pair_id, judge, template, shown, vote)
) WITHOUT ROWID;
INSERT INTO template_verdicts SELECT pair_id, judge, 'explain', shown, vote, parser, verdict FROM verdicts;

DROP TABLE presentations;
DROP TABLE verdicts;
CREATE TABLE kept_replies AS SELECT * FROM replies;
DROP TABLE replies;
DROP TABLE requests;
ALTER TABLE numbered_requests RENAME TO requests;
ALTER TABLE template_presentations RENAME TO presentations;
ALTER TABLE template_verdicts RENAME TO verdicts;
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
INSERT INTO replies SELECT * FROM kept_replies;
DROP TABLE kept_replies;

CREATE UNIQUE INDEX requests_by_seq ON requests (seq);
CREATE INDEX requests_to_send ON requests (judge, seq) WHERE state = 'planned';
CREATE INDEX requests_by_state ON requests (state, judge);
CREATE INDEX replies_by_request ON replies (request_key);
CREATE INDEX presentations_by_request ON presentations (request_key);
