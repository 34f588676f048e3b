package link

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/internal/dialer"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// connectTimeout bounds one TCP connect to a tunnel server. During a network outage
// the system retransmits at ever longer intervals; a new attempt starts from the
// shortest, and succeeds soon after the network is back.
const connectTimeout = 4 * time.Second

// serverDialer opens links and data connections to one tunnel server.
type serverDialer struct {
	address   string
	timeout   time.Duration
	line      *dialer.Dialer
	plain     bool // Data connections for TCP may do without encryption.
	streams   int  // How many of these the client can have open, and of UDP flows;
	flows     int  // 0: any number.
	websocket websocket.Dialer
	http      *http.Transport // For the upgrade of data connections for TCP.
	sessions  *sessions
	resuming  *http.Transport // As http, for connections that resume the link's TLS session.

	// With classic TLS hellos; see dialer.Attempt.
	classicTLS  *tls.Config
	classicHTTP *http.Transport
}

// newServerDialer returns a dialer that accepts only the key with that fingerprint;
// "": a certificate that the system trusts.
func newServerDialer(c *config, address, fingerprint string) *serverDialer {
	timeout := c.Limits.DialTimeout
	d := &serverDialer{
		address: address, timeout: timeout, line: c.line, plain: c.PlainStreams, streams: c.Limits.Streams,
		flows: c.Limits.OpenFlows, sessions: newSessions(),
	}
	d.websocket = websocket.Dialer{
		Proxy:            c.Proxy,
		HandshakeTimeout: timeout,
		ReadBufferSize:   udptunnel.ReadBufferSize,
		WriteBufferSize:  udptunnel.WriteBufferSize,
		WriteBufferPool:  &udptunnel.WriteBuffers,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13,
			// A data connection resumes the link's session, which spares both
			// ends a signature.
			ClientSessionCache: d.sessions,
		},
	}
	if fingerprint != "" {
		// Safe: the key itself is compared with the fingerprint from the panel, for
		// new and resumed TLS sessions alike, which is stricter than a name certified
		// by any authority.
		d.websocket.TLSClientConfig.InsecureSkipVerify = true
		d.websocket.TLSClientConfig.VerifyConnection = verifyFingerprint(fingerprint)
	}
	d.http = &http.Transport{
		Proxy:           c.Proxy,
		DialContext:     d.connectStream,
		TLSClientConfig: d.websocket.TLSClientConfig,
		// A cancelled request leaves its handshake running, forever where the peer
		// does not answer.
		TLSHandshakeTimeout: timeout,
		DisableKeepAlives:   true, // A connection that is not upgraded is closed.
	}
	d.resuming = d.http.Clone()
	d.resuming.TLSClientConfig = resumingTLS(d.websocket.TLSClientConfig)
	d.classicTLS = dialer.ClassicTLS(d.websocket.TLSClientConfig)
	d.classicHTTP = d.http.Clone()
	d.classicHTTP.TLSClientConfig = d.classicTLS
	return d
}

// connect opens the socket of a link or data connection.
func (d *serverDialer) connect(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.line.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn, nil
	}
	return tcpstream.NewSocket(tcp)
}

// verifyFingerprint accepts only the key with this fingerprint: the hexadecimal
// SHA-256 of its SubjectPublicKeyInfo.
func verifyFingerprint(fingerprint string) func(tls.ConnectionState) error {
	want, err := hex.DecodeString(fingerprint)
	return func(state tls.ConnectionState) error {
		if err != nil || len(state.PeerCertificates) == 0 {
			return errKeyMismatch
		}
		got := sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
		if subtle.ConstantTimeCompare(got[:], want) != 1 {
			return errKeyMismatch
		}
		return nil
	}
}

// link opens a link with a ticket, and resumes the UDP session of that name; "": none.
func (d *serverDialer) link(ctx context.Context, ticket, udpSession string) (*websocket.Conn, error) {
	query := url.Values{}
	if udpSession != "" {
		query.Set(wire.SessionParam, udpSession)
	}
	if d.streams > 0 {
		query.Set(wire.StreamsParam, strconv.Itoa(d.streams))
	}
	if d.flows > 0 {
		query.Set(wire.FlowsParam, strconv.Itoa(d.flows))
	}
	// It may wait for a modern hello that is not answered; players may not.
	return d.dial(ctx, true, wire.PathLink, query, ticket, wire.Subprotocol)
}

// datagrams opens a data connection of a UDP session with a link's secret.
func (d *serverDialer) datagrams(ctx context.Context, udpSession, secret string) (*websocket.Conn, error) {
	query := dataQuery(wire.KindDatagram)
	query.Set(wire.SessionParam, udpSession)
	return d.dial(ctx, false, wire.PathData, query, secret, wire.SubprotocolRatchet, wire.SubprotocolSplit, wire.Subprotocol)
}

// proxied reports whether the tunnel server is reached through a proxy. UDP does not
// pass one, and bypassing it would not be what its operator wants.
func (d *serverDialer) proxied() bool {
	if d.websocket.Proxy == nil {
		return false
	}
	proxy, err := d.websocket.Proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: d.address}})
	return proxy != nil || err != nil
}

func dataQuery(kind wire.Kind) url.Values { return url.Values{wire.KindParam: {string(kind)}} }

// dial opens a WebSocket of one of the subprotocols.
func (d *serverDialer) dial(
	ctx context.Context, probe bool, path string, query url.Values, credential string, subprotocols ...string,
) (*websocket.Conn, error) {
	u := url.URL{Scheme: "wss", Host: d.address, Path: path, RawQuery: query.Encode()}
	ctx, attempt := d.line.Begin(ctx, d.address)
	websockets := d.websocket
	websockets.Subprotocols = subprotocols
	if attempt.Classic(probe) {
		websockets.TLSClientConfig = d.classicTLS
	}
	stop := func() bool { return true }
	websockets.NetDialContext = func(dialCtx context.Context, network, address string) (net.Conn, error) {
		conn, err := d.connect(dialCtx, network, address)
		if err == nil {
			// Waiting for the response, the library does not notice the end of ctx.
			stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
		}
		return conn, err
	}
	ws, response, err := websockets.DialContext(ctx, u.String(), http.Header{"Authorization": {"Bearer " + credential}})
	if !stop() {
		err = ctx.Err()
	}
	if response != nil {
		defer func() { _ = response.Body.Close() }()
	}
	if errors.Is(err, websocket.ErrBadHandshake) && response != nil {
		attempt.End(nil) // It answered.
		return nil, newRefusedError(response)
	}
	attempt.End(err)
	if err != nil {
		if ws != nil {
			_ = ws.Close()
		}
		return nil, err
	}
	if !slices.Contains(subprotocols, ws.Subprotocol()) {
		_ = ws.Close()
		return nil, fmt.Errorf("it does not support %s", wire.Subprotocol)
	}
	return ws, nil
}
