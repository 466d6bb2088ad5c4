-- What the requester's token said besides who it is: groups, who acts for it, whose key signed it.
-- A JSON object; empty for sessions from before, whose requesters no token proved.
ALTER TABLE sessions ADD COLUMN requester_grounds TEXT NOT NULL DEFAULT '{}';
