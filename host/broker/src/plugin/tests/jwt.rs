//! A plugin that asks the broker to sign what it may not.

use super::*;
use crate::issuer::Issuer;
use crate::journal::{JournalOptions, SealingKey, SqliteJournal};

#[tokio::test]
async fn a_forged_claim_audience_or_end_is_never_signed() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = issuer(folder.path()).await;
    let connection = ConnectionSpec::Jwt(JwtSpec { audiences: vec!["sts.example".to_owned()] });
    let backend = BackendSpec {
        connections: BTreeMap::from([("issuer".parse().unwrap(), connection)]),
        ..bare_backend()
    };
    let sandbox = Sandbox::start(patient()).unwrap();
    let seen = Seen::default();
    let options =
        PluginsOptions { issuer: Some(issuer), observer: observer(&seen), ..Default::default() };
    let plugins = vec![plugin("hostile/claims_forger")];
    let plugins = Plugins::load_on(sandbox, plugins, vec![backend], options);
    let fixture = Fixture { plugins: plugins.map_err(|e| messages(&e)).unwrap(), seen };
    let mut reports = Vec::new();
    while reports.last().is_none_or(|last| last == "nothing") {
        let parameters = format!(r#"{{"from": "{}"}}"#, 12 * reports.len());
        let request = |settings: &str| issue_request(intent(), settings, &parameters);
        let issued = fixture.plugins.mint(&"backend".parse().unwrap(), request).await;
        let fields = fields(issued.unwrap());
        assert_eq!(fields["token"].split('.').count(), 3, "the honest one is signed");
        reports.push(fields["report"].clone());
    }
    assert_eq!(reports, ["nothing", "nothing", "nothing", "done"]);
}

async fn issuer(folder: &Path) -> Arc<Issuer> {
    let options = JournalOptions {
        path: folder.join("journal.db"),
        sealing_key: SealingKey::take(&mut [7; 32]),
        intent_timeout: Duration::from_secs(30),
        queue_max: 64,
        commit_observer: None,
    };
    let journal = SqliteJournal::open(options).unwrap().journal;
    let issuer = Issuer::new("https://b.example", Duration::from_hours(24)).unwrap();
    issuer.tend(&journal, now()).await.unwrap();
    Arc::new(issuer)
}
