-- What people say of pairs. It was bought, with their time: rows are never deleted, and do not hang on pairs, which are derived. A
-- label belongs to a prompt and two texts, whatever the pair is called in which they meet.

CREATE TABLE reviewed_pairs (               -- what people were shown
    pair_key TEXT PRIMARY KEY,              -- BLAKE3 of the prompt and both texts, whichever is a
    prompt   TEXT NOT NULL,                 -- JSON: text or messages
    first    TEXT NOT NULL,                 -- the text that comes first in the order of bytes
    second   TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE human_verdicts (
    id         INTEGER PRIMARY KEY,
    pair_key   TEXT NOT NULL REFERENCES reviewed_pairs (pair_key),
    reviewer   TEXT NOT NULL,
    queue      TEXT NOT NULL,               -- in which they met it
    on_left    TEXT NOT NULL CHECK (on_left IN ('first', 'second')),
    choice     TEXT NOT NULL CHECK (choice IN ('first', 'second', 'tie', 'skip')),
    criteria   TEXT NOT NULL,               -- JSON: criterion to 'first', 'second' or 'tie'
    note       TEXT,
    shown_ms   INTEGER NOT NULL,            -- ms since 1970
    judged_ms  INTEGER NOT NULL,
    undone_ms  INTEGER                      -- when it was taken back or replaced; NULL while it stands
);
CREATE UNIQUE INDEX human_verdicts_that_stand ON human_verdicts (pair_key, reviewer) WHERE undone_ms IS NULL;
CREATE INDEX human_verdicts_by_reviewer ON human_verdicts (reviewer, id);
