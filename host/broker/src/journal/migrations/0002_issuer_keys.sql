-- The keys with which the broker signs tokens, sealed: times, public key and, while the key may
-- sign, private key. The seal covers the public key too, since a row that somebody adds would
-- otherwise be published as the broker's own.
CREATE TABLE issuer_keys (
    kid    TEXT PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;
