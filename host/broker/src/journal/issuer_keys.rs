//! The issuer's keys as the journal keeps them: sealed whole. Makes no key and decides on none.

use claviger_core::journal::{Entry, Event};
use claviger_core::ports::JournalError;
use claviger_core::time::Timestamp;
use rusqlite::Connection;
use zeroize::Zeroizing;

use super::SqliteJournal;
use super::fault::Fault;

/// A key of the broker as an issuer.
pub struct IssuerKey {
    /// Its id, which tokens name.
    pub kid: String,
    /// Its public half, a JWK as JSON.
    pub jwk: String,
    /// Its private half, PKCS #8; none once it signs no more.
    pub pkcs8: Option<Zeroizing<Vec<u8>>>,
    /// When it was made.
    pub made_at: Timestamp,
    /// From when on it signs.
    pub signs_from: Timestamp,
}

/// What becomes of the keys, all of it or nothing.
#[derive(Default)]
pub struct KeyChange {
    /// A new key.
    pub made: Option<IssuerKey>,
    /// Keys that sign no more, without their private halves.
    pub silenced: Vec<IssuerKey>,
    /// The ids of keys that no valid token names any more.
    pub dropped: Vec<String>,
}

impl SqliteJournal {
    /// Every key that is kept.
    pub async fn issuer_keys(&self) -> Result<Vec<IssuerKey>, JournalError> {
        // By the writer, which alone knows for sure which key they are sealed under.
        self.queue
            .submit(|ledger| {
                let rows = stored(ledger.conn())?;
                let open = |(kid, sealed): (String, Vec<u8>)| {
                    let plain = ledger.seals().open_issuer_key(&kid, &sealed)?;
                    let cut = || Fault::damaged("a key of the issuer is cut short");
                    decoded(kid, &plain).ok_or_else(cut)
                };
                rows.into_iter().map(open).collect()
            })
            .await
    }

    /// Changes what is kept, and records a key that was made.
    pub async fn change_issuer_keys(
        &self,
        change: KeyChange,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let KeyChange { made, silenced, dropped } = change;
        let entry = made.as_ref().map(|key| entry(key, now));
        self.queue
            .submit(move |ledger| {
                for key in made.iter().chain(&silenced) {
                    let sealed = ledger.seals().seal_issuer_key(&key.kid, &encoded(key))?;
                    ledger
                        .conn()
                        .prepare_cached("INSERT OR REPLACE INTO issuer_keys VALUES (?1, ?2)")?
                        .execute((&key.kid, &sealed))?;
                }
                for kid in &dropped {
                    ledger
                        .conn()
                        .prepare_cached("DELETE FROM issuer_keys WHERE kid = ?1")?
                        .execute([kid])?;
                }
                if let Some(entry) = &entry {
                    ledger.append(entry)?;
                }
                Ok(())
            })
            .await
    }
}

fn stored(conn: &Connection) -> Result<Vec<(String, Vec<u8>)>, Fault> {
    let mut statement = conn.prepare_cached("SELECT kid, sealed FROM issuer_keys")?;
    let rows = statement.query_map([], |row| Ok((row.get("kid")?, row.get("sealed")?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn entry(key: &IssuerKey, now: Timestamp) -> Entry {
    let mut entry = Entry::new(now, Event::IssuerKeyMade);
    entry.detail = Some(format!("key {} signs from {}", key.kid, key.signs_from));
    entry
}

/// Both times, the length of the public half, the public half, the private half. Written with
/// enough room from the start: a buffer that grows would leave the key in freed memory.
fn encoded(key: &IssuerKey) -> Zeroizing<Vec<u8>> {
    let private = key.pkcs8.as_ref().map_or(&[][..], |pkcs8| pkcs8.as_slice());
    let length = u32::try_from(key.jwk.len()).unwrap_or(u32::MAX);
    let parts: [&[u8]; 5] = [
        &key.made_at.unix_millis().to_be_bytes(),
        &key.signs_from.unix_millis().to_be_bytes(),
        &length.to_be_bytes(),
        key.jwk.as_bytes(),
        private,
    ];
    Zeroizing::new(parts.concat())
}

fn decoded(kid: String, plain: &[u8]) -> Option<IssuerKey> {
    let (made_at, rest) = plain.split_first_chunk()?;
    let (signs_from, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (jwk, private) = rest.split_at_checked(length)?;
    let private = (!private.is_empty()).then(|| Zeroizing::new(private.to_vec()));
    Some(IssuerKey {
        kid,
        jwk: String::from_utf8(jwk.to_vec()).ok()?,
        pkcs8: private,
        made_at: Timestamp::from_unix_millis(u64::from_be_bytes(*made_at)),
        signs_from: Timestamp::from_unix_millis(u64::from_be_bytes(*signs_from)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_key_comes_back_as_it_was_kept_and_never_from_half_of_it() {
        for pkcs8 in [None, Some(Zeroizing::new(vec![1, 2, 3]))] {
            let key = IssuerKey {
                kid: "k".to_owned(),
                jwk: "{}".to_owned(),
                pkcs8: pkcs8.clone(),
                made_at: Timestamp::from_unix_millis(5),
                signs_from: Timestamp::from_unix_millis(7),
            };
            let plain = encoded(&key);
            let back = decoded("k".to_owned(), &plain).unwrap();
            assert_eq!((back.jwk.as_str(), &back.pkcs8), ("{}", &pkcs8));
            assert_eq!((back.made_at, back.signs_from), (key.made_at, key.signs_from));
            assert!(decoded("k".to_owned(), &plain[..21]).is_none());
        }
    }
}
