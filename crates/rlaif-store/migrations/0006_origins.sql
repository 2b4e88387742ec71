-- Replies that were taken from the ledger of another run. Nothing was sent for them: they answer attempt 0, and cost nothing here.

ALTER TABLE replies ADD COLUMN origin TEXT; -- the run folder that it was taken from; NULL where this run bought it
