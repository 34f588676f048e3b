package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/controlclient"
)

// dialTimeout bounds the TLS and WebSocket handshakes of the control channel.
const dialTimeout = 10 * time.Second

// errDeleted ends a run of the tunnel server whose device is gone.
var errDeleted = &channel.FinalError{Code: channel.CloseDeleted, Reason: "the device is deleted"}

// dial opens the tunnel server's control channel with a token issued for it, so
// that no token is stored. It reports the outcome of the first attempt to
// awaitOnline.
func (t *tunnelServer) dial(ctx context.Context, id uuid.UUID) (*websocket.Conn, error) {
	conn, err := t.connect(ctx, id)
	t.warn(ctx, err)
	select {
	case t.dialled <- err:
	default:
	}
	return conn, err
}

// warn logs once for each reason why the tunnel server does not reach its own
// panel: nobody can play on its ports, and the panel itself runs on.
func (t *tunnelServer) warn(ctx context.Context, err error) {
	reason := ""
	if err != nil && ctx.Err() == nil && !errors.Is(err, channel.ErrFeatureOff) {
		reason = err.Error()
	}
	if last := t.warned.Swap(&reason); reason != "" && (last == nil || *last != reason) {
		t.log.WarnContext(ctx, "tunnel server does not reach its panel; it keeps trying", slog.Any("error", err))
	}
}

func (t *tunnelServer) connect(ctx context.Context, id uuid.UUID) (*websocket.Conn, error) {
	device, err := t.enroll(ctx)
	if err != nil {
		return nil, err
	}
	if device.ID != id {
		return nil, errDeleted
	}
	token, err := t.panel.auth.DeviceToken(device.ID, device.Kind, device.TokenVersion)
	if err != nil {
		return nil, err
	}
	dialer, url := t.panelListener()
	conn, resp, err := dialer.DialContext(ctx, url, http.Header{"Authorization": {"Bearer " + token}})
	if err == nil {
		return conn, nil
	}
	if resp == nil {
		return nil, err
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// panelListener returns a dialer for the panel's own HTTP listener, and the URL of
// the control channel there. The public URL will not do: it may lead to a proxy,
// or nowhere from this machine.
func (t *tunnelServer) panelListener() (dialer *websocket.Dialer, url string) {
	// Without a Proxy function it ignores the environment's HTTP proxy.
	dialer = &websocket.Dialer{HandshakeTimeout: dialTimeout}
	u := localURL(t.panel.listener.Addr(), t.panel.tls != nil)
	u.Scheme, u.Path = "ws", "/api/tunnel/ws"
	dialer.NetDialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialListener(ctx, network, t.panel.listener.Addr())
	}
	if t.panel.tls != nil {
		u.Scheme = "wss"
		dialer.TLSClientConfig = pinned(t.panel.own.certificate)
		dialer.TLSClientConfig.ServerName = t.panel.own.name
	}
	return dialer, u.String()
}

// dialListener connects to a listener of this process. It uses addresses alone:
// not every machine has the name localhost, or an address of each family for it.
func dialListener(ctx context.Context, network string, address net.Addr) (net.Conn, error) {
	var dialer net.Dialer
	tcp, ok := address.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return dialer.DialContext(ctx, network, address.String())
	}
	conn, err := dialer.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port)))
	if err == nil {
		return conn, nil
	}
	conn, err6 := dialer.DialContext(ctx, network, net.JoinHostPort("::1", strconv.Itoa(tcp.Port)))
	if err6 != nil {
		return nil, errors.Join(err, err6)
	}
	return conn, nil
}

// pinned returns a TLS configuration that accepts certificate and no other.
func pinned(certificate tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection takes its place.
		VerifyConnection: func(state tls.ConnectionState) error {
			if !bytes.Equal(state.PeerCertificates[0].Raw, certificate.Certificate[0]) {
				return errors.New("the listener's certificate is not the panel's")
			}
			return nil
		},
	}
}

// refusal returns the error in the panel's answer to a handshake.
func refusal(resp *http.Response) error {
	var body types.Problem
	// gorilla keeps at most the first kilobyte of the body.
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<10)).Decode(&body); err != nil {
		return fmt.Errorf("the panel answered %s", resp.Status)
	}
	return controlclient.Refusal(body.Error, body.Message, fmt.Errorf("the panel answered %s: %s", resp.Status, body.Message))
}
