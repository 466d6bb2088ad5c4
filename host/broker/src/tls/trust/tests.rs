//! Certificates of every kind against authorities of every kind. No handshakes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::*;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A good X.509-SVID but for what `change` changes.
fn svid(issuer: &Issuer, id: &str, change: impl FnOnce(&mut CertificateParams)) -> Certificate {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::ExplicitNoCa;
    change(&mut params);
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap()
}

fn verifier(
    operator: Option<&Issuer>,
    domains: Option<&[(&str, &Issuer)]>,
) -> Arc<dyn ClientCertVerifier> {
    let der = |issuer: &Issuer| issuer.der().clone();
    let domains = domains.map(|domains| {
        let domain =
            |(name, issuer): &(&str, &Issuer)| (TrustDomain::new(name).unwrap(), vec![der(issuer)]);
        domains.iter().map(domain).collect()
    });
    let authority = operator.map(der).into_iter().collect();
    let trust = ClientTrust { demand: ClientCertificates::Required, authority, domains };
    trust.verifier().unwrap().expect("certificates are asked for")
}

fn check(verifier: &Arc<dyn ClientCertVerifier>, leaf: &Certificate) -> Result<(), String> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_900_000_000));
    let verified = verifier.verify_client_cert(leaf.der(), &[], now);
    verified.map(drop).map_err(|error| error.to_string())
}

#[test]
fn a_spiffe_id_is_proven_by_its_own_trust_domains_bundle_and_by_nothing_else() {
    let (operator, own, partner) = (authority(), authority(), authority());
    let both = verifier(Some(&operator), Some(&[("own.org", &own), ("partner.org", &partner)]));
    for (case, issuer, id, good) in [
        ("own", &own, "spiffe://own.org/agent", true),
        ("a partner's", &partner, "spiffe://partner.org/agent", true),
        ("own, minted by the partner", &partner, "spiffe://own.org/agent", false),
        ("a partner's, minted by our own", &own, "spiffe://partner.org/agent", false),
        ("own, minted by the operator", &operator, "spiffe://own.org/agent", false),
        ("of nobody's domain, by the operator", &operator, "spiffe://else.org/agent", false),
        ("of nobody's domain, by our own", &own, "spiffe://else.org/agent", false),
        ("another URI, by the operator", &operator, "https://own.org/agent", false),
    ] {
        let checked = check(&both, &svid(issuer, id, |_| {}));
        assert_eq!(checked.is_ok(), good, "{case}: {checked:?}");
    }
    let named = |issuer: &Issuer| {
        svid(issuer, "spiffe://x/y", |params| {
            params.subject_alt_names = vec![SanType::DnsName("ci.own.org".try_into().unwrap())];
        })
    };
    assert_eq!(check(&both, &named(&operator)), Ok(()));
    assert!(check(&both, &named(&own)).is_err(), "a trust domain vouches for ids only");
    let spiffe_only = verifier(None, Some(&[("own.org", &own)]));
    let error = check(&spiffe_only, &named(&operator)).expect_err("no authority");
    assert!(error.contains("NoAuthority"), "{error}");
}

#[test]
fn without_spiffe_the_operators_authority_vouches_for_ids_too() {
    let operator = authority();
    let only = verifier(Some(&operator), None);
    let good = svid(&operator, "spiffe://own.org/agent", |params| params.key_usages = vec![]);
    assert_eq!(check(&only, &good), Ok(()));
    let foreign = svid(&authority(), "spiffe://own.org/agent", |_| {});
    assert!(check(&only, &foreign).is_err());
}

#[test]
fn what_is_no_workloads_certificate_is_refused() {
    let own = authority();
    let spiffe = verifier(None, Some(&[("own.org", &own)]));
    let id = "spiffe://own.org/agent";
    let mut cases: Vec<(&str, Certificate)> = vec![
        ("no key usage", svid(&own, id, |params| params.key_usages = vec![])),
        (
            "may sign certificates",
            svid(&own, id, |params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        ),
        (
            "may sign revocations",
            svid(&own, id, |params| params.key_usages.push(KeyUsagePurpose::CrlSign)),
        ),
        (
            "no signatures",
            svid(&own, id, |params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]),
        ),
        (
            "an authority",
            svid(&own, id, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ),
        ("expired", svid(&own, id, |params| params.not_after = rcgen::date_time_ymd(2029, 1, 1))),
        (
            "not yet valid",
            svid(&own, id, |params| params.not_before = rcgen::date_time_ymd(2039, 1, 1)),
        ),
        (
            "two ids",
            svid(&own, id, |params| {
                let more = "spiffe://own.org/other".try_into().unwrap();
                params.subject_alt_names.push(SanType::URI(more));
            }),
        ),
    ];
    for id in ["spiffe://own.org", "spiffe://own.org/a//b", "spiffe://OWN.org/a", "spiffe:own"] {
        cases.push((id, svid(&own, id, |_| {})));
    }
    for (case, leaf) in cases {
        assert!(check(&spiffe, &leaf).is_err(), "{case}");
    }
}

#[test]
fn only_what_may_sign_certificates_stands_in_a_chain() {
    let own = authority();
    let spiffe = verifier(None, Some(&[("own.org", &own)]));
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_900_000_000));
    for (usages, good) in [
        (vec![KeyUsagePurpose::KeyCertSign], true),
        (vec![KeyUsagePurpose::DigitalSignature], false),
        (vec![], false),
    ] {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages.clone_from(&usages);
        let middle =
            CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &own).unwrap();
        let leaf = svid(&middle, "spiffe://own.org/agent", |_| {});
        let chain = [middle.der().clone()];
        let verified = spiffe.verify_client_cert(leaf.der(), &chain, now);
        assert_eq!(verified.is_ok(), good, "{usages:?}: {verified:?}");
    }
}

#[test]
fn somebody_must_be_trusted_and_optional_is_not_mandatory() {
    let own = authority();
    let mut trust = ClientTrust {
        demand: ClientCertificates::Optional,
        authority: Vec::new(),
        domains: Some(BTreeMap::new()),
    };
    assert_eq!(trust.verifier().err(), Some(TrustError::Nobody));
    trust.authority = vec![own.der().clone()];
    let optional = trust.verifier().unwrap().expect("asked for");
    assert!(optional.offer_client_auth() && !optional.client_auth_mandatory());
    assert!(check(&optional, &svid(&authority(), "spiffe://a/b", |_| {})).is_err());
    trust.demand = ClientCertificates::None;
    assert!(trust.verifier().unwrap().is_none());
}
