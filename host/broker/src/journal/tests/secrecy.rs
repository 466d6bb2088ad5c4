//! What must stand in no byte of the journal's files.

use std::path::Path;

use claviger_core::session::EndCause;
use claviger_core::{fixture, flow};

use super::world::{HANDLE, PASSWORD, World, token_text};

#[tokio::test]
async fn neither_handle_nor_token_nor_credential_is_in_any_byte_of_the_files() {
    let world = World::new().await;
    let session = world.session().await;
    let mut ask = fixture::ask();
    ask.claimed_reason = Some("a reason that is recorded".to_owned());
    world.issue_for(&session, &ask).await.unwrap();

    let folder = world.path().parent().unwrap().to_owned();
    assert!(holds(&folder, b"a reason that is recorded"), "the search itself must find");
    let token = token_text(1);
    let secrets: [&[u8]; 5] = [
        HANDLE.as_bytes(),
        PASSWORD.as_bytes(),
        token.as_bytes(),
        token.strip_prefix("clvs_").unwrap().as_bytes(),
        &[1; 32],
    ];
    for secret in secrets {
        assert!(!holds(&folder, secret), "{} while open", String::from_utf8_lossy(secret));
    }
    flow::session::end(&*world, session.id(), EndCause::Closed).await.unwrap();
    let due = world.take_due().await;
    assert_eq!(due[0].handle.as_ref().unwrap().as_str(), HANDLE, "and yet it is there");

    let (_path, _folder) = world.close().await;
    for secret in secrets {
        assert!(!holds(&folder, secret), "{} after closing", String::from_utf8_lossy(secret));
    }
}

fn holds(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|file| {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        content.windows(bytes.len()).any(|window| window == bytes)
    })
}
