package publichost

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
)

// probeTimeout bounds the check of whether a tunnel server answers at a host. Two lost
// packets fit in.
const probeTimeout = 5 * time.Second

// follows reports whether a guessed host should become the one from which the tunnel
// server has called. A machine may call from several addresses in turn, of which players
// and agents should know one: while the present host leads to the tunnel server, only a
// host that more players reach replaces it. If the panel can reach neither, as without a
// way out of its network, the one that more players reach counts, or the newer one.
func follows(ctx context.Context, c db.HostCheck) bool {
	var present, called bool
	var probes sync.WaitGroup
	probes.Go(func() { present = answers(ctx, c.PublicHost, c.RelayPort, c.Fingerprint) })
	probes.Go(func() { called = answers(ctx, c.CalledFrom, c.RelayPort, c.Fingerprint) })
	probes.Wait()
	before, after := reach(c.PublicHost), reach(c.CalledFrom)
	switch {
	case ctx.Err() != nil:
		return false
	case present != called:
		return called
	case present:
		return after > before
	default:
		return after >= before
	}
}

// answers reports whether the tunnel server with the key of fingerprint accepts agents
// at host and port.
func answers(ctx context.Context, host string, port int, fingerprint string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS12,
		//nolint:gosec // the key is compared instead of a chain, as agents do
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			sum := sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
			if hex.EncodeToString(sum[:]) != fingerprint {
				return errors.New("another key")
			}
			return nil
		},
	}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	_ = conn.Close() // Nothing was sent.
	return true
}
