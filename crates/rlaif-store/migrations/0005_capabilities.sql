-- What endpoints hold answers to. Each form was asked for once, with a request of its own that no pair needs.

CREATE TABLE capabilities (
    endpoint  TEXT NOT NULL,                -- kind and base URL
    model     TEXT NOT NULL,
    form      TEXT NOT NULL,                -- 'choice', 'json_schema', 'tool'
    obeyed    INTEGER NOT NULL,
    complaint TEXT,                         -- why it is not used, in words
    found_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')),
    PRIMARY KEY (endpoint, model, form)
) WITHOUT ROWID;
