package agent

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/pacing"
	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// connectTimeout bounds the connecting to a tunnel server. While the network is
// away the system asks again at ever longer intervals; a try of its own begins
// anew, and is answered soon after the network is back.
const connectTimeout = 4 * time.Second

// errOtherKey means that whoever answers is not the tunnel server the panel
// told of.
var errOtherKey = errors.New("it shows another key than the panel announced")

// refusedError is an answer other than an upgrade.
type refusedError struct {
	status  int
	message string
}

func (e *refusedError) Error() string {
	if e.message == "" {
		return fmt.Sprintf("it answers %d %s", e.status, http.StatusText(e.status))
	}
	return e.message
}

// relayDialler opens links and data connections to one tunnel server.
type relayDialler struct {
	address   string
	timeout   time.Duration
	open      func(ctx context.Context, network, address string) (net.Conn, error)
	plain     bool // Stream data connections may do without encryption.
	websocket websocket.Dialer
	http      *http.Transport // For the upgrade of stream data connections.
}

func newRelayDialler(address, fingerprint string, proxy func(*http.Request) (*url.URL, error), timeout time.Duration, p *pacing.Pacer) *relayDialler {
	d := &relayDialler{address: address, timeout: timeout}
	d.open = p.Dialer(net.Dialer{Timeout: min(timeout, connectTimeout)})
	d.websocket = websocket.Dialer{
		Proxy:            proxy,
		NetDialContext:   d.connect,
		HandshakeTimeout: timeout,
		Subprotocols:     []string{wire.Subprotocol},
		ReadBufferSize:   udptunnel.ReadBufferSize,
		WriteBufferSize:  udptunnel.WriteBufferSize,
		WriteBufferPool:  &udptunnel.WriteBuffers,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13,
			// A data connection resumes the link's session, which spares both
			// ends a signature.
			ClientSessionCache: tls.NewLRUClientSessionCache(1),
		},
	}
	if fingerprint != "" {
		// Safe: the key itself is compared with what the panel announced, for
		// new and resumed sessions alike, which is stricter than any authority's
		// word for a name.
		d.websocket.TLSClientConfig.InsecureSkipVerify = true
		d.websocket.TLSClientConfig.VerifyConnection = pin(fingerprint)
	}
	d.http = &http.Transport{
		Proxy:           proxy,
		DialContext:     d.connectStream,
		TLSClientConfig: d.websocket.TLSClientConfig,
		// A request that is given up leaves its handshake to go on, for ever where
		// nobody answers.
		TLSHandshakeTimeout: timeout,
		DisableKeepAlives:   true, // What is not upgraded is closed.
	}
	return d
}

// connect opens the socket of a link or data connection.
func (d *relayDialler) connect(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.open(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn, nil
	}
	return tcpstream.NewSocket(tcp)
}

// pin accepts only the key with this fingerprint: the hexadecimal SHA-256 of
// its SubjectPublicKeyInfo.
func pin(fingerprint string) func(tls.ConnectionState) error {
	want, err := hex.DecodeString(fingerprint)
	return func(state tls.ConnectionState) error {
		if err != nil || len(state.PeerCertificates) == 0 {
			return errOtherKey
		}
		got := sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
		if subtle.ConstantTimeCompare(got[:], want) != 1 {
			return errOtherKey
		}
		return nil
	}
}

// link opens a link with a ticket, to go on with a carrier where there is one.
func (d *relayDialler) link(ctx context.Context, ticket, carrier string) (*websocket.Conn, error) {
	query := url.Values{}
	if carrier != "" {
		query.Set(wire.CarrierParam, carrier)
	}
	return d.dial(ctx, wire.PathLink, query, ticket)
}

// datagrams opens the data connection of a carrier with a link's secret.
func (d *relayDialler) datagrams(ctx context.Context, carrier, secret string) (*websocket.Conn, error) {
	query := dataQuery(wire.KindDatagram)
	query.Set(wire.CarrierParam, carrier)
	return d.dial(ctx, wire.PathData, query, secret)
}

// proxied reports whether a proxy is to be used. UDP does not pass one, and going
// past it is not what whoever has set it wants.
func (d *relayDialler) proxied() bool {
	if d.websocket.Proxy == nil {
		return false
	}
	proxy, err := d.websocket.Proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: d.address}})
	return proxy != nil || err != nil
}

func dataQuery(kind wire.Kind) url.Values { return url.Values{wire.KindParam: {string(kind)}} }

func (d *relayDialler) dial(ctx context.Context, path string, query url.Values, credential string) (*websocket.Conn, error) {
	u := url.URL{Scheme: "wss", Host: d.address, Path: path, RawQuery: query.Encode()}
	ws, response, err := d.websocket.DialContext(ctx, u.String(), http.Header{"Authorization": {"Bearer " + credential}})
	if response != nil {
		defer func() { _ = response.Body.Close() }()
	}
	if errors.Is(err, websocket.ErrBadHandshake) && response != nil {
		return nil, refusedBy(response)
	}
	if err != nil {
		return nil, err
	}
	if ws.Subprotocol() != wire.Subprotocol {
		_ = ws.Close()
		return nil, fmt.Errorf("it does not speak %s", wire.Subprotocol)
	}
	return ws, nil
}

// refusedBy reads an answer other than an upgrade.
func refusedBy(response *http.Response) error {
	message, _ := io.ReadAll(io.LimitReader(response.Body, 200))
	return &refusedError{status: response.StatusCode, message: strings.TrimSpace(string(message))}
}

// relayReason says for people why there is no link.
func relayReason(err error) string {
	var closed *websocket.CloseError
	switch {
	case errors.Is(err, errOtherKey):
		return errOtherKey.Error()
	case errors.As(err, &closed) && closed.Code == channel.CloseRestarting:
		return "it restarts"
	case errors.As(err, &closed) && closed.Code == websocket.CloseAbnormalClosure:
		return "the connection was cut"
	case errors.As(err, &closed) && closed.Text != "":
		return closed.Text
	default:
		return target.Reason(err)
	}
}
