package main

// What a party needs to know beforehand: addresses, its own credentials, the trust list and the policy.

import (
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
)

type federation struct {
	dir       string
	addresses addresses
	members   []memberEntry
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

// openFederation reads a state directory. In life: one's own credentials, and the root keys by a way one trusts.
func openFederation(dir string) (*federation, error) {
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

	list, err := readDocument[trustList](filepath.Join(dir, "trust-list.cose"), typTrustList, roots, pinned.Threshold)
	if err != nil {
		return nil, err
	}
	text, err := readDocument[string](filepath.Join(dir, "policy.cose"), typPolicy, roots, pinned.Threshold)
	if err != nil {
		return nil, err
	}
	read := &federation{dir: dir, addresses: prepared.Addresses, members: list.Members}
	_, err = toml.Decode(text, &read.policy)
	return read, err
}

func readDocument[Content any](path string, typ int, roots []issuerKey, threshold int) (content Content, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return content, err
	}
	if content, err = openDocument[Content](typ, data, roots, threshold); err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return content, err
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
