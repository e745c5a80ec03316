//! Good tokens used for something else than they were given for: another place, purpose or scope, by somebody else, twice,
//! or after they were revoked (I1).

use proto::{
    contract::recognition::{Outcome, RecognizeRequest},
    presentation::{HintKey, Presentation},
    proof::prove,
    random::Random,
    refusal::Reason,
    terms::{Category, Kind, Purpose, Purposes, Scope},
    token::{Audience, Consent, TokenHash},
    venue::VenueId,
};
use province_stub::seed::Condition;
use tongxing::{
    checkpoint::Checkpoint,
    phone::{PROOF_LIFE, Wish},
};
use tonic::Code::PermissionDenied;

use crate::sandbox::{
    cases::{Case, consent, request, run, station},
    forge::Forger,
    member, shared, still_serves, venue,
    want::want,
};

#[tokio::test]
async fn a_consent_to_something_else() {
    let home = Forger::of(shared(), member("51"));
    let good = home.consent();
    let denied = |reason| want(reason, PermissionDenied);
    let for_audience = |audience| Consent { audience, ..good.clone() };
    let elsewhere = || denied(Reason::AudienceMismatch).about("token").with("venue", station());
    let travel = Consent { purposes: Purposes::new([Purpose::Travel]).unwrap(), ..good.clone() };
    let not_consented = denied(Reason::PurposeNotConsented).about("token").with("purpose", "entry");
    let not_admitted = denied(Reason::PurposeNotAdmitted).with("category", "station").with("purpose", "medical");
    let presented = home.present(&good, Some(&station()));
    let bound_elsewhere = home.present(&good, Some(&venue("11/station/beijing-west")));
    let with_proof = Presentation { proof: presented.proof.clone(), ..home.present(&home.paper(), None) };
    let without_proof = Presentation { proof: None, ..presented.clone() };
    let greedy = |scope| RecognizeRequest { scope, ..request(&presented, Purpose::Entry) };
    let beyond = |granted| denied(Reason::ScopeNotGranted).with("granted", granted);
    let case = |name, request, want| Case { name, request, want };
    run(vec![
        consent("for hospitals", &home, &for_audience(Audience::Category(Category::Hospital)), elsewhere()),
        consent(
            "for another station",
            &home,
            &for_audience(Audience::Venue(venue("44/station/shenzhen"))),
            elsewhere(),
        ),
        consent("for another purpose", &home, &travel, not_consented),
        case("a purpose no station has", request(&presented, Purpose::Medical), not_admitted),
        case(
            "a screenshot of the token",
            request(&without_proof, Purpose::Entry),
            denied(Reason::ProofMissing).about("proof"),
        ),
        case(
            "paper with a proof",
            request(&with_proof, Purpose::Entry),
            denied(Reason::ProofUnexpected).about("proof"),
        ),
        case(
            "a proof for another venue",
            request(&bound_elsewhere, Purpose::Entry),
            denied(Reason::ProofOfOtherVenue).about("proof").with("venue", station()),
        ),
        case("tests, at a station for entry", greedy(1 + 4), beyond(33)),
        case("everything", greedy(63), beyond(33)),
    ])
    .await;
}

#[tokio::test]
async fn a_presentation_replayed_at_another_venue() {
    let sandbox = shared();
    let elsewhere = venue("11/station/beijing-west");
    let pass = sandbox.green(member("51")).await;
    let free = pass.present(None, sandbox.now());
    let (here, there) = (sandbox.at(&station()), sandbox.at(&elsewhere));
    let asked_there = Checkpoint::request(&elsewhere, &free, Purpose::Entry);
    still_serves(&here, &request(&free, Purpose::Entry), "nothing").await;
    let redeemed = want(Reason::AlreadyRedeemed, PermissionDenied).about("proof");
    redeemed.check("a second venue", there.send(asked_there).await);
    still_serves(&here, &request(&free, Purpose::Entry), "the second venue's refusal").await;
    // A fresh proof is a new showing.
    let fresh = Checkpoint::request(&elsewhere, &pass.present(None, sandbox.now()), Purpose::Entry);
    still_serves(&there, &fresh, "its own refusal").await;
    // An assisted token is for one exchange, even at the same venue.
    let home = Forger::of(sandbox, member("51"));
    let once = Consent { kind: Kind::Assisted, audience: Audience::Venue(station()), ..home.paper() };
    let once = request(&home.present(&once, None), Purpose::Entry);
    assert_eq!(here.send(once.clone()).await.expect("once").outcome(), Outcome::UnknownTraveler, "home knows of none");
    let redeemed = want(Reason::AlreadyRedeemed, PermissionDenied).about("token");
    redeemed.check("an assisted token, twice", here.send(once).await);
}

/// Randomness that is always the same.
#[derive(Debug)]
struct Same;

impl Random for Same {
    fn fill(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

/// Whoever sees an ECDSA signature can make another one of the same message: it must not be another showing.
#[tokio::test]
async fn a_proof_that_is_signed_once_more_is_the_same_proof() {
    let sandbox = shared();
    let home = Forger::of(sandbox, member("51"));
    let consent = home.consent();
    let token = home.sign(&consent);
    let prove = || prove(TokenHash::of(&token), consent.cti, &home.device, None, home.now, PROOF_LIFE, &Same);
    let show = |at: &VenueId, proof| {
        let shown = Presentation { token: token.clone(), proof: Some(proof), hint_key: HintKey([0; 16]) };
        Checkpoint::request(at, &shown, Purpose::Entry)
    };
    let (first, second, elsewhere) = (prove(), prove(), venue("11/station/beijing-west"));
    assert_ne!(first, second);
    let answer = sandbox.at(&station()).send(show(&station(), first)).await;
    assert_eq!(answer.expect("a first showing").outcome(), Outcome::UnknownTraveler, "home knows of no such token");
    let redeemed = want(Reason::AlreadyRedeemed, PermissionDenied).about("proof");
    redeemed.check("signed once more", sandbox.at(&elsewhere).send(show(&elsewhere, second)).await);
}

#[tokio::test]
async fn a_consent_that_was_revoked() {
    let sandbox = shared();
    let person = sandbox.person(member("51"), Condition::Green);
    let wish = Wish { kind: Kind::Paper, scope: Scope::LEVEL, ..Wish::default() };
    let phone = sandbox.desk.backend(member("51")).unwrap().enroll(&person).await.unwrap();
    let printed = phone.consent(&wish, sandbox.now()).await.unwrap().present(None, sandbox.now());
    let checkpoint = sandbox.at(&station());
    still_serves(&checkpoint, &request(&printed, Purpose::Entry), "nothing").await;
    let again = phone.consent(&wish, sandbox.now()).await.unwrap().present(None, sandbox.now());
    let revoked = want(Reason::ConsentRevoked, PermissionDenied).about("token").from("home");
    revoked.check("the lost print", checkpoint.send(request(&printed, Purpose::Entry)).await);
    still_serves(&checkpoint, &request(&again, Purpose::Entry), "the lost print").await;
}
