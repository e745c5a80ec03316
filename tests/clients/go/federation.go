package main

// What a party needs to know beforehand: addresses, its own credentials, the trust list and the policy.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	federationpb "tongxing.test/gen/tongxing/federation/v1"
)

type federation struct {
	dir       string
	addresses addresses
	members   []memberEntry
	logKeys   []issuerKey
	policy    policy
}

type addresses struct {
	Gateways []struct{ Public string }
	Nodes    map[string]struct{ Public string }
}

// policy is the part of the policy that a venue needs to check a statement.
type policy struct {
	Lives  struct{ Statement, Offline time.Duration }
	Labels map[string]map[string]string
}

// openFederation reads a state directory: one's own credentials, and in life the root keys by a way one trusts. All else
// comes from the gateway.
func openFederation(dir, venue string) (*federation, error) {
	var prepared struct{ Addresses addresses }
	if _, err := toml.DecodeFile(filepath.Join(dir, "federation.toml"), &prepared); err != nil {
		return nil, err
	}
	var pinned struct {
		Threshold int
		Roots     []string
	}
	if _, err := toml.DecodeFile(filepath.Join(dir, "trust-list.toml"), &pinned); err != nil {
		return nil, err
	}
	var roots []issuerKey
	for _, root := range pinned.Roots {
		public, err := hex.DecodeString(root)
		if err != nil || len(public) != 32 {
			return nil, fmt.Errorf("not a root key: %q", root)
		}
		roots = append(roots, issuerKey{Alg: algEd25519, Public: [32]byte(public)})
	}

	read := &federation{dir: dir, addresses: prepared.Addresses}
	return read, read.fetch(venue, roots, pinned.Threshold)
}

// fetch gets trust list and policy from the gateway, which cannot forge them: enough of the pinned roots must have signed.
func (f *federation) fetch(venue string, roots []issuerKey, threshold int) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	channel, err := f.gateway(venue)
	if err != nil {
		return err
	}
	defer channel.Close()
	gateway := federationpb.NewFederationServiceClient(channel)
	listed, err := gateway.GetTrustList(ctx, &federationpb.GetTrustListRequest{})
	if err != nil {
		return err
	}
	list, err := openDocument[trustList](typTrustList, listed.TrustList, roots, threshold)
	if err != nil {
		return fmt.Errorf("trust list: %w", err)
	}
	f.members, f.logKeys = list.Members, list.Gateway.LogKeys
	held, err := gateway.GetPolicy(ctx, &federationpb.GetPolicyRequest{})
	if err != nil {
		return err
	}
	text, err := openDocument[string](typPolicy, held.Policy, roots, threshold)
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	_, err = toml.Decode(text, &f.policy)
	return err
}

// trust is what the list says of a member; of one that is not in it, nothing, so that no key is ever found.
func (f *federation) trust(member string) memberEntry {
	for _, entry := range f.members {
		if entry.Code == member {
			return entry
		}
	}
	return memberEntry{}
}

// level is 转码: what a member's own word means everywhere. "" is no level, and never green.
func (f *federation) level(member, label string) string {
	labels, own := f.policy.Labels[member]
	if !own {
		labels = f.policy.Labels["default"]
	}
	return labels[label]
}

func (f *federation) node(member, role string) (*grpc.ClientConn, error) {
	return f.channel(f.addresses.Nodes[member].Public, member, filepath.Join(role, member))
}

func (f *federation) gateway(venue string) (*grpc.ClientConn, error) {
	own := filepath.Join("venue", strings.ReplaceAll(venue, "/", "-"))
	return f.channel(f.addresses.Gateways[0].Public, "gateway", own)
}

// channel believes the one CA of the server that is meant. Every other member's CA vouches for its own alone.
func (f *federation) channel(address, server, own string) (*grpc.ClientConn, error) {
	ca, err := os.ReadFile(filepath.Join(f.dir, "ca", server+".tongxing.test.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	certificate, err := tls.LoadX509KeyPair(filepath.Join(f.dir, own, "cert.pem"), filepath.Join(f.dir, own, "key.pem"))
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}
	return grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
}
