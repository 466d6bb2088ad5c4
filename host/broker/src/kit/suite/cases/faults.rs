//! What a plugin does when the network does its worst: lost answers, silence, nobody, nonsense.

use claviger_core::catalog::RevocationClass;
use claviger_core::ports::{PluginError, PluginErrorKind};
use tokio::time::Instant;

use super::{DIRECT, DOWN, PROXIED, Suite, ok, skipped};
use crate::kit::suite::proxy::Fault;
use crate::kit::suite::report::Verdict;
use crate::plugin::{Ask, Trial};

impl Suite {
    /// Loses each answer in turn; what was minted must be found by the intent alone.
    pub(super) async fn lost_issue_revoked(&mut self) -> Verdict {
        if let Some(why) = &self.skip {
            return skipped(why);
        }
        for lost in 0..ANSWERS_MAX {
            let ask = self.ask();
            self.faults.set(Fault::LoseAfter(lost));
            let issued = self.issue(PROXIED, &ask).await;
            if self.faults.clear() != Fault::Lost {
                let minted = issued.map_err(|error| format!("`issue` fails: {error}"))?;
                self.end(&ask, minted.handle.as_ref()).await?;
                return ok(self.told(lost, "revoked by its intent alone"));
            }
            self.faults.at_rest().await;
            if let Err(error) = &issued {
                self.honest(error, &ask).await?;
            }
            self.end(&ask, None).await.map_err(|error| {
                format!("with answer {} of `issue` lost and no handle, {error}", lost + 1)
            })?;
            if self.manifest.orphan_ttl_secs_max.is_none() {
                self.expect_left(&ask, 0, "after `issue` lost an answer and was revoked").await?;
            }
        }
        Err(never_ends())
    }

    /// Loses each answer in turn; the repetition must leave exactly one credential, that works.
    pub(super) async fn lost_issue_repeated(&mut self) -> Verdict {
        if let Some(why) = &self.skip {
            return skipped(why);
        }
        for lost in 0..ANSWERS_MAX {
            let ask = self.ask();
            self.faults.set(Fault::LoseAfter(lost));
            let first = self.issue(PROXIED, &ask).await;
            if self.faults.clear() != Fault::Lost {
                let minted = first.map_err(|error| format!("`issue` fails: {error}"))?;
                self.end(&ask, minted.handle.as_ref()).await?;
                return ok(self.told(lost, "repeated, and left one credential"));
            }
            self.faults.at_rest().await;
            let when = format!("after answer {} of `issue` was lost", lost + 1);
            let minted = self.issued(DIRECT, &ask).await;
            let minted = minted.map_err(|error| format!("{when}, its repetition: {error}"))?;
            let works = self.upstream.works(&minted.fields).await?;
            self.expect_left(&ask, 1, &format!("{when} and it was repeated")).await?;
            self.end(&ask, minted.handle.as_ref()).await?;
            self.expect_left(&ask, 0, &format!("{when}, it was repeated and revoked")).await?;
            if !works {
                return Err(format!("{when}, the repeated credential does not work"));
            }
        }
        Err(never_ends())
    }

    /// Loses each answer of `revoke` in turn; the repetition must end the credential.
    pub(super) async fn lost_revoke_repeated(&mut self) -> Verdict {
        if let Some(why) = &self.skip {
            return skipped(why);
        }
        for lost in 0..ANSWERS_MAX {
            let ask = self.ask();
            let minted = self.issued(DIRECT, &ask).await?;
            self.faults.set(Fault::LoseAfter(lost));
            let revoked = self.revoke(PROXIED, &ask, minted.handle.as_ref()).await;
            let all_passed = self.faults.clear() != Fault::Lost;
            if all_passed {
                revoked.map_err(|error| format!("`revoke` fails: {error}"))?;
                self.dead(&minted).await?;
                return ok(self.told(lost, "repeated, and ended the credential"));
            }
            self.faults.at_rest().await;
            self.end(&ask, minted.handle.as_ref()).await.map_err(|error| {
                format!("after answer {} of `revoke` was lost, {error}", lost + 1)
            })?;
            self.dead(&minted).await?;
            self.expect_left(&ask, 0, "after `revoke` lost an answer and was repeated").await?;
        }
        Err(never_ends())
    }

    pub(super) async fn backend_down(&mut self) -> Verdict {
        if let Some(why) = &self.skip {
            return skipped(why);
        }
        let ask = self.ask();
        let issued = self.issue(DOWN, &ask).await.map(drop);
        let revoked = self.revoke(DOWN, &ask, None).await;
        let ends_nothing = self.manifest.revocation.class == RevocationClass::ExpireOnly;
        for (call, ended) in [("issue", issued), ("revoke", revoked)] {
            match ended {
                // It may have nothing to say to a backend that cannot end a credential.
                Ok(()) if call == "revoke" && ends_nothing => {}
                Ok(()) => return Err(format!("`{call}` says `ok` while the backend is down")),
                Err(error) if error.kind != PluginErrorKind::Unavailable => {
                    return Err(format!(
                        "`{call}` fails as {:?} while the backend is down, not as unavailable",
                        error.kind
                    ));
                }
                Err(error) if error.request_sent => {
                    return Err(format!(
                        "`{call}` claims that a request was sent while the backend is down"
                    ));
                }
                Err(_) => {}
            }
        }
        match ends_nothing {
            true => ok("`issue` fails as unavailable, with nothing sent; `revoke` ends nothing"),
            false => ok("both calls fail as unavailable, with nothing sent"),
        }
    }

    pub(super) async fn backend_silent(&mut self) -> Verdict {
        if let Some(why) = &self.skip {
            return skipped(why);
        }
        let ask = self.ask();
        self.faults.set(Fault::Silence);
        let began = Instant::now();
        let issued = self.issue(PROXIED, &ask).await.map(drop);
        let took = began.elapsed();
        self.faults.clear();
        self.end(&ask, None).await?;
        match issued {
            Ok(()) => Err("`issue` says `ok` though nobody answered".to_owned()),
            Err(error) if error.kind != PluginErrorKind::Timeout => Err(format!(
                "a backend that never answers makes `issue` fail as {:?}, not as a timeout: {error}",
                error.kind
            )),
            Err(_) if took > Trial::wall() * 2 => Err(format!("`issue` took {took:?}")),
            Err(_) => ok(format!("`issue` gave up after {:.1} s as a timeout", took.as_secs_f32())),
        }
    }

    /// Answers of every wrong sort: an error each time, and never a trap or a credential.
    pub(super) async fn wrong_answers(&mut self) -> Verdict {
        if let Some(why) = &self.skip {
            return skipped(why);
        }
        for (what, bytes) in WRONG_ANSWERS {
            let ask = self.ask();
            self.faults.set(Fault::Garbage(bytes));
            let issued = self.issue(PROXIED, &ask).await.map(drop);
            let revoked = self.revoke(PROXIED, &ask, None).await;
            self.faults.clear();
            self.end(&ask, None).await?;
            let trapped = |error: &PluginError| {
                matches!(error.kind, PluginErrorKind::Sandbox | PluginErrorKind::NotLoaded)
            };
            match issued {
                Ok(()) => return Err(format!("{what} makes `issue` say `ok`")),
                Err(error) if trapped(&error) => {
                    return Err(format!("{what} breaks `issue`: {error}"));
                }
                Err(_) => {}
            }
            if let Err(error) = revoked
                && trapped(&error)
            {
                return Err(format!("{what} breaks `revoke`: {error}"));
            }
        }
        ok(format!("{} sorts of nonsense each made `issue` fail in order", WRONG_ANSWERS.len()))
    }

    /// Whoever says that nothing was sent promises that nothing was made.
    async fn honest(&self, error: &PluginError, ask: &Ask) -> Result<(), String> {
        if error.request_sent {
            return Ok(());
        }
        self.expect_left(ask, 0, "though `issue` says that no request was sent").await
    }

    fn told(&self, lost: u32, what: &str) -> String {
        let unseen = match self.upstream.lists() {
            true => "",
            false => " (what is left upstream was not looked at: there is no `[list]`)",
        };
        format!("with each of {lost} answers lost in turn, the call was {what}{unseen}")
    }
}

fn never_ends() -> String {
    format!("the call asks for more than {ANSWERS_MAX} answers")
}

/// 64 statements are the most that a call may send; connecting takes a few answers more.
const ANSWERS_MAX: u32 = 72;

/// What no server should say: no protocol, and four sorts of wrong HTTP.
const WRONG_ANSWERS: [(&str, &[u8]); 5] = [
    ("an answer of random bytes", b"\x00\xff\x17\x93garbage\r\n\r\n\x01\x02"),
    (
        "a page instead of data",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>",
    ),
    (
        "an empty object",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    ),
    (
        "broken JSON",
        b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\n{\"a\":",
    ),
    (
        "an internal error",
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops",
    ),
];
