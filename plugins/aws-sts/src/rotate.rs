//! Has IAM make another access key for the user whose key the host signs with, and delete the one
//! before. Sees the ids of keys, and no key.

use claviger_plugin_sdk::http::{Request, Response};
use claviger_plugin_sdk::{Error, ErrorKind, NewKey, log};

/// Another key beside the one in force.
pub fn make(id_in_force: &str) -> Result<NewKey, Error> {
    make_room(id_in_force)?;
    let made = iam("CreateAccessKey", None)?;
    let at =
        |name: &str| format!("/CreateAccessKeyResponse/CreateAccessKeyResult/AccessKey/{name}");
    let key = made.take_secret(&at("SecretAccessKey"))?;
    Ok(NewKey { id: made.require(&at("AccessKeyId"))?, key })
}

/// Deletes a key of the user whose key signs. Any other is `NotFound`, and stays.
pub fn delete(id: &str) -> Result<(), Error> {
    iam("DeleteAccessKey", Some(id)).map(drop)
}

/// A user has two keys at most. The second one goes if nobody can be using it: what an interrupted
/// call made, nobody has, and it was never used.
fn make_room(id_in_force: &str) -> Result<(), Error> {
    let keys = keys(&iam("ListAccessKeys", None)?.body());
    if !keys.iter().any(|key| key.id == id_in_force) {
        let message = "IAM does not list the key in force among the keys of its user: grant the \
                       connection `iam` all `reads` of the plugin's README, and let it use the \
                       same secrets as `sts`";
        // Nothing was made: IAM was only asked.
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    for key in keys.iter().filter(|key| key.id != id_in_force) {
        if key.is_active && was_used(&key.id)? {
            let message = format!(
                "the user has a second access key, `{}`, which somebody has used: find out who, \
                 and delete or deactivate it",
                key.id
            );
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        log::info(
            "an access key that nobody uses is deleted",
            &[("access_key_id", key.id.as_str())],
        );
        match delete(&key.id) {
            // Somebody else was quicker.
            Err(error) if error.kind == ErrorKind::NotFound => {}
            deleted => deleted?,
        }
    }
    Ok(())
}

fn was_used(id: &str) -> Result<bool, Error> {
    let told = iam("GetAccessKeyLastUsed", Some(id))?;
    let at =
        "/GetAccessKeyLastUsedResponse/GetAccessKeyLastUsedResult/AccessKeyLastUsed/LastUsedDate";
    Ok(told.read(at)?.is_some())
}

/// Asks IAM about the user whose key signs the request.
fn iam(action: &str, id: Option<&str>) -> Result<Response, Error> {
    let mut fields = vec![("Action", action), ("Version", API_VERSION)];
    fields.extend(id.map(|id| ("AccessKeyId", id)));
    let answer = Request::post("iam").path("/").form(&fields).send().map_err(unsent)?;
    answer
        .ok_or_at(Some("/ErrorResponse/Error/Code"), Some("/ErrorResponse/Error/Message"))
        .map_err(explain)
}

fn unsent(error: Error) -> Error {
    if error.kind == ErrorKind::Denied && !error.request_sent {
        return error.with_advice(BIND);
    }
    error
}

fn explain(error: Error) -> Error {
    let (kind, advice) = match error.code.as_deref() {
        Some("AccessDenied") => (ErrorKind::Denied, RIGHTS),
        Some("LimitExceeded") => (ErrorKind::Conflict, ROOM),
        Some("NoSuchEntity") => return error.with_kind(ErrorKind::NotFound),
        // Not IAM's word: with it the host would give up a key that works.
        _ if error.kind == ErrorKind::NotFound => (ErrorKind::Other, ADDRESS),
        _ => return error,
    };
    error.with_kind(kind).with_advice(advice)
}

struct Key {
    id: String,
    is_active: bool,
}

/// The keys in an answer to `ListAccessKeys`, as the host shows it: no location names one of
/// several elements. IAM lists all that a user may have on one page.
fn keys(xml: &str) -> Vec<Key> {
    let members = xml.split("<member>").skip(1);
    let key = |member: &str| {
        let member = member.split("</member>").next()?;
        let id = element(member, "AccessKeyId")?.to_owned();
        Some(Key { id, is_active: element(member, "Status") != Some("Inactive") })
    };
    members.filter_map(key).collect()
}

fn element<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

/// The version of the IAM API, the only one.
const API_VERSION: &str = "2010-05-08";

const BIND: &str = "to replace the access key, bind the connection `iam` too, with the same \
                    secrets: the plugin's README shows how";
const RIGHTS: &str = "let the user's policy allow iam:ListAccessKeys, iam:GetAccessKeyLastUsed, \
                      iam:CreateAccessKey and iam:DeleteAccessKey on the user itself";
const ROOM: &str = "the user has two access keys: delete the one that is not in use";
const ADDRESS: &str = "check that the connection `iam` has IAM's address and all `reads` of the \
                       plugin's README";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_key_and_takes_what_is_not_plainly_inactive_for_active() {
        let xml = "<ListAccessKeysResponse><ListAccessKeysResult><AccessKeyMetadata>\n\
                   <member><UserName>u</UserName><AccessKeyId>AKIA1</AccessKeyId>\
                   <Status>Active</Status></member>\n\
                   <member><AccessKeyId>AKIA2</AccessKeyId><Status>Inactive</Status></member>\n\
                   <member><AccessKeyId>AKIA3</AccessKeyId><Status>[hidden]</Status></member>\n\
                   <member><UserName>u</UserName></member></AccessKeyMetadata>\n\
                   <IsTruncated>false</IsTruncated></ListAccessKeysResult></ListAccessKeysResponse>";
        let found: Vec<_> = keys(xml).into_iter().map(|key| (key.id, key.is_active)).collect();
        let expect = [("AKIA1", true), ("AKIA2", false), ("AKIA3", true)];
        assert_eq!(found, expect.map(|(id, is_active)| (id.to_owned(), is_active)));
        assert!(keys("").is_empty());
    }

    #[test]
    fn says_what_the_operator_must_do() {
        for (said, code, kind, advice) in [
            (ErrorKind::Denied, "AccessDenied", ErrorKind::Denied, "iam:CreateAccessKey"),
            (ErrorKind::Conflict, "LimitExceeded", ErrorKind::Conflict, "two access keys"),
            (ErrorKind::Other, "ServiceFailure", ErrorKind::Other, "no"),
            (ErrorKind::NotFound, "NoSuchEntity", ErrorKind::NotFound, "no"),
            (ErrorKind::NotFound, "404", ErrorKind::Other, "IAM's address"),
        ] {
            let mut error = Error::new(said, "no").after_sending();
            error.code = Some(code.to_owned());
            let error = explain(error);
            assert_eq!(error.kind, kind, "{code}");
            assert!(error.message.contains(advice), "{}", error.message);
        }
    }
}
