package agent

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"

	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// acceptGUID is what a server adds to the key of an upgrade (RFC 6455 section
// 1.3).
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// stream opens a stream data connection with a link's secret. Its frames are
// forward's own matter, hence the upgrade is not left to a WebSocket library,
// which would keep the first of them in a buffer of its own.
func (d *relayDialler) stream(ctx context.Context, secret string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	conn := new(upgraded)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) { conn.Conn = got.Conn },
	})
	u := url.URL{Scheme: "https", Host: d.address, Path: wire.PathData, RawQuery: dataQuery(wire.KindStream).Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	key := make([]byte, 16)
	_, _ = rand.Read(key) // It never fails.
	request.Header = http.Header{
		"Authorization":          {"Bearer " + secret},
		"Connection":             {"Upgrade"},
		"Upgrade":                {"websocket"},
		"Sec-Websocket-Version":  {"13"},
		"Sec-Websocket-Key":      {base64.StdEncoding.EncodeToString(key)},
		"Sec-Websocket-Protocol": {wire.Subprotocol},
	}
	plain, err := d.mayBePlain(request)
	if err != nil {
		return nil, err
	}
	if plain {
		request.Header.Set("Sec-Websocket-Protocol", wire.SubprotocolPlain+", "+wire.Subprotocol)
	}
	response, err := d.http.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		defer func() { _ = response.Body.Close() }()
		return nil, refusedBy(response)
	}
	var ok bool
	if conn.body, ok = response.Body.(io.ReadWriteCloser); !ok || conn.Conn == nil {
		_ = response.Body.Close()
		return nil, errors.New("it answers with an upgrade that cannot be used")
	}
	protocol, err := checkUpgrade(request.Header, response.Header)
	if err != nil || protocol == wire.Subprotocol {
		tcpstream.StayWithTLS(conn)
	}
	switch {
	case err == nil && protocol == wire.Subprotocol:
		return conn, nil
	case err == nil && plain:
		var data net.Conn
		if data, err = tcpstream.LeaveTLS(conn.Conn); err == nil {
			return data, nil
		}
	case err == nil:
		err = errors.New("it leaves encryption without having been asked")
	}
	_ = conn.Close()
	return nil, err
}

// mayBePlain reports whether a stream data connection may leave TLS: where there
// is a proxy, that may have a TLS of its own below.
func (d *relayDialler) mayBePlain(request *http.Request) (bool, error) {
	if !d.plain || d.http.Proxy == nil {
		return d.plain, nil
	}
	proxy, err := d.http.Proxy(request)
	return proxy == nil, err
}

// connectStream opens the socket of a stream data connection.
func (d *relayDialler) connectStream(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.connect(ctx, network, address)
	if s, ok := conn.(*tcpstream.Socket); ok && d.plain {
		s.KeepRecords()
	}
	return conn, err
}

// checkUpgrade checks a server's half of the upgrade (RFC 6455 section 4.1),
// and returns the subprotocol that it has chosen.
func checkUpgrade(request, response http.Header) (string, error) {
	protocol := response.Get("Sec-WebSocket-Protocol")
	if protocol != wire.Subprotocol && protocol != wire.SubprotocolPlain {
		return "", fmt.Errorf("it does not speak %s", wire.Subprotocol)
	}
	accept := sha1.Sum([]byte(request.Get("Sec-WebSocket-Key") + acceptGUID))
	if response.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(accept[:]) ||
		response.Get("Sec-WebSocket-Extensions") != "" {
		return "", errors.New("it answers with an upgrade of something else")
	}
	return protocol, nil
}

// upgraded is a connection after its upgrade. What the server said in the same
// breath as its answer is read from the answer's body.
type upgraded struct {
	net.Conn
	body io.Reader
}

func (u *upgraded) Read(p []byte) (int, error) { return u.body.Read(p) }

// NetConn returns the connection below: what is read from it directly may come
// out of order.
func (u *upgraded) NetConn() net.Conn { return u.Conn }
