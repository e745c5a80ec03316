//! A desk from which every party of a prepared federation can be played: it reads the state directory and dials.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context, Result};
use gateway::documents::{self, TrustSource};
use peer::{
    credentials::{CredentialFiles, Credentials},
    dial::{self, DialLimits},
    network::Network,
    serve::Standing,
    surroundings::Surroundings,
    trust::{Trust, TrustFiles, TrustStore},
    verifier::Expected,
};
use proto::{
    contract::{
        assignment::{SetCodeRequest, assignment_service_client::AssignmentServiceClient},
        evidence::evidence_service_client::EvidenceServiceClient,
    },
    member::Member,
    time::Clock,
    venue::VenueId,
};
use province_stub::seed::SeededPerson;
use tonic::transport::Channel;

use crate::{
    checkpoint::Checkpoint,
    layout::Layout,
    phone::{self, Backend, request_id},
    prepare::Prepared,
};

/// The parties of one federation.
#[derive(Clone, Debug)]
pub struct Desk {
    layout: Layout,
    prepared: Prepared,
    trust: Arc<TrustStore>,
    network: Arc<dyn Network>,
}

impl Desk {
    /// Opens a prepared federation, running or not.
    pub fn open(layout: &Layout, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_in(layout, Surroundings::by(clock))
    }

    /// The same, by a clock and over a network of the caller's own.
    pub fn open_in(layout: &Layout, surroundings: Surroundings) -> Result<Self> {
        let prepared = Prepared::read(layout)?;
        let path = layout.trust_source();
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let source: TrustSource = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let files = TrustFiles {
            list: layout.trust_list(),
            policy: layout.policy(),
            roots: documents::parse_roots(source.threshold, &source.roots)?,
            domain: layout.domain(),
            held: None,
            crls: Some(layout.crls()),
            gateways: Vec::new(),
        };
        let Surroundings { clock, network, .. } = surroundings;
        Ok(Self { layout: layout.clone(), prepared, trust: TrustStore::open(files, clock)?, network })
    }

    /// Where everything is.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What was prepared.
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// The trust list and policy of now.
    pub fn trust(&self) -> Arc<Trust> {
        self.trust.current()
    }

    /// Takes up new editions.
    pub fn reload(&self) -> Result<bool> {
        Ok(self.trust.reload()?)
    }

    /// A party with the credentials in a directory.
    pub fn standing(&self, dir: &Path) -> Result<Standing> {
        let files = CredentialFiles { certificate: dir.join("cert.pem"), key: dir.join("key.pem") };
        let credentials = Credentials::open(files, self.trust.domain())?;
        Ok(Standing { trust: self.trust.clone(), credentials, network: self.network.clone() })
    }

    /// A member's backend at its node.
    pub fn backend(&self, member: Member) -> Result<Backend> {
        let address = self.node_address(member)?;
        Backend::new(&self.standing(&self.layout.backend(member))?, member, &address)
    }

    /// A member's operator at its node.
    pub fn operator(&self, member: Member) -> Result<AssignmentServiceClient<Channel>> {
        Ok(AssignmentServiceClient::new(self.node(member, &self.layout.operator(member))?))
    }

    /// A member's platform at its node, which pushes codes.
    pub fn platform(&self, member: Member) -> Result<AssignmentServiceClient<Channel>> {
        Ok(AssignmentServiceClient::new(self.node(member, &self.layout.backend(member))?))
    }

    /// One of a member's feeds at its node.
    pub fn feed(&self, member: Member, name: &str) -> Result<EvidenceServiceClient<Channel>> {
        Ok(EvidenceServiceClient::new(self.node(member, &self.layout.feed(member, name))?))
    }

    /// A member's node, for whoever has the credentials in a directory.
    fn node(&self, member: Member, credentials: &Path) -> Result<Channel> {
        let (standing, expected) = (self.standing(credentials)?, Expected::NodeOf(member));
        Ok(dial::channel(&standing, &self.node_address(member)?, expected, DialLimits::default())?)
    }

    /// Has a member's operator set the code that a seeded person has, at a node that did not seed them. Who has none stays
    /// without.
    pub async fn assign(&self, member: Member, person: &SeededPerson) -> Result<()> {
        let Some(label) = person.label() else { return Ok(()) };
        let (rule, authority) = match person.assigned_by() {
            Some((rule, authority)) => (rule.to_owned(), authority.to_string()),
            None => ("R-CLEAR".to_owned(), format!("{member}/health-commission")),
        };
        let request = SetCodeRequest {
            request_id: request_id(),
            document: Some(phone::document(person)),
            label: label.to_owned(),
            rule,
            authority,
            justification: "one of the people of the one-machine federation".to_owned(),
        };
        self.operator(member)?.set_code(request).await?;
        Ok(())
    }

    /// A venue at the gateway.
    pub fn checkpoint(&self, venue: &VenueId) -> Result<Checkpoint> {
        self.checkpoint_at(venue, &self.gateway_address()?)
    }

    /// A venue at each of the gateway's replicas.
    pub fn checkpoints(&self, venue: &VenueId) -> Result<Vec<Checkpoint>> {
        let gateways = &self.prepared.addresses.gateways;
        gateways.iter().map(|gateway| self.checkpoint_at(venue, &gateway.public)).collect()
    }

    fn checkpoint_at(&self, venue: &VenueId, gateway: &str) -> Result<Checkpoint> {
        let standing = self.standing(&self.layout.venue(venue)).with_context(|| format!("venue {venue}"))?;
        Checkpoint::new(venue.clone(), standing, gateway)
    }

    /// Where the gateway listens.
    pub fn gateway_address(&self) -> Result<String> {
        let gateway = self.prepared.addresses.gateways.first().context("no gateway was prepared")?;
        Ok(gateway.public.to_string())
    }

    /// Where a member's node listens.
    pub fn node_address(&self, member: Member) -> Result<String> {
        let nodes = &self.prepared.addresses.nodes;
        let pair = nodes.get(&member.to_string());
        let here = || nodes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let pair = pair.with_context(|| format!("member {member} is not in this federation, which has {}", here()))?;
        Ok(pair.public.clone())
    }
}
