-- Where a session's token is good, as JSON. What was opened before is bound to the same proof: the
-- user of the unix socket, or the certificate that opened it.
ALTER TABLE sessions ADD COLUMN binding TEXT;

UPDATE sessions SET binding = CASE json_extract(principal, '$.claims.method')
    WHEN 'unix' THEN json_object(
        'kind', 'unix',
        'uid', CAST(json_extract(principal, '$.claims.uid') AS INTEGER))
    WHEN 'mtls' THEN json_object(
        'kind', 'certificate',
        'name', json_extract(principal, '$.id'),
        'current', json_extract(principal, '$.claims.thumbprint'))
END;
