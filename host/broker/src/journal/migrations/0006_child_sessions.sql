-- The sessions above a session and above that of a lease, the top one first: a JSON array.
ALTER TABLE sessions ADD COLUMN ancestors TEXT NOT NULL DEFAULT '[]';
ALTER TABLE leases ADD COLUMN ancestors TEXT NOT NULL DEFAULT '[]';

-- The one that opened it; NULL for a top session.
ALTER TABLE sessions ADD COLUMN parent TEXT REFERENCES sessions (id);

-- For the end of a session, which ends those below it.
CREATE INDEX sessions_below ON sessions (parent) WHERE ended_at IS NULL;
