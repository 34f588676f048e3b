package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// speaking returns a transport that speaks one version of HTTP alone, over TLS or not.
func speaking(t *testing.T, config *tls.Config, version int) *http.Transport {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(version == 1)
	protocols.SetHTTP2(version == 2)
	transport := &http.Transport{TLSClientConfig: config.Clone(), Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// fetch sends a request and returns its status and the version of HTTP it came over.
func fetch(t *testing.T, transport http.RoundTripper, method, url, body string) (status, version int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), controltest.Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Errorf("%s %s: %v", method, url, err)
		return 0, 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Errorf("%s %s: %v", method, url, err)
	}
	return resp.StatusCode, resp.ProtoMajor
}

func TestListener_SpeaksHTTP1AndHTTP2OverTLS(t *testing.T) {
	certFile, keyFile, roots := certify(t)
	login := fmt.Sprintf(`{"email":%q,"password":%q}`, servertest.AdminEmail, servertest.AdminPassword)
	// Several starts: which of two listeners of one http.Server wins is chance.
	for range 3 {
		p := servertest.Start(t, func(o *server.Options) { o.TLSCertFile, o.TLSKeyFile = certFile, keyFile })
		for _, version := range []int{1, 2} {
			transport := speaking(t, &tls.Config{RootCAs: roots}, version)
			for _, request := range []struct {
				method, path, body string
				want               int
			}{
				{"GET", "/readyz", "", 200},
				{"GET", "/device", "", 200},
				{"POST", "/api/auth/login", login, 200},
				{"GET", "/api/tunnel/devices", "", 401},
				{"GET", "/api/nothing", "", 404},
				// Over HTTP/2 nothing is upgraded. That is the caller's mistake.
				{"GET", "/api/tunnel/ws", "", 401},
			} {
				status, spoken := fetch(t, transport, request.method, p.URL+request.path, request.body)
				if status != request.want || spoken != version {
					t.Errorf("%s %s: %d over HTTP/%d, want %d over HTTP/%d",
						request.method, request.path, status, spoken, request.want, version)
				}
			}
		}
		p.Stop() // Connections of both versions are open.
	}
}

func TestListener_CarriesControlChannelsBesideHTTP2(t *testing.T) {
	certFile, keyFile, roots := certify(t)
	p := servertest.Start(t, func(o *server.Options) { o.TLSCertFile, o.TLSKeyFile = certFile, keyFile })
	transport := speaking(t, &tls.Config{RootCAs: roots}, 2)
	p.Over(transport)
	admin := p.Admin()
	device := p.Enroll("gaming-rig")
	server := embedded(t, admin)

	dialer := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: roots}, HandshakeTimeout: controltest.Patience}
	ws, resp, err := dialer.DialContext(t.Context(), "wss"+strings.TrimPrefix(p.URL, "https")+"/api/tunnel/ws",
		http.Header{"Authorization": {"Bearer " + device.Token}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	agent := controltest.NewPeer(t, ws)
	agent.Hello(nil)
	controltest.Next[types.ClientSnapshot](agent)
	created := allocate(t, admin, device, types.CreateTCP) // Over HTTP/2.
	change := controltest.Next[types.ClientChange](agent)
	ready(agent, change.Revision, created.ID)
	listening(t, admin, created.ID)

	// A device that asks over HTTP/2 is told why, with a body of ours.
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL+"/api/tunnel/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+device.Token)
	answer, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.ProtoMajor != 2 || answer.StatusCode < 400 || answer.StatusCode >= 500 {
		t.Errorf("a control channel over HTTP/%d: %s", answer.ProtoMajor, answer.Status)
	}

	// The tunnel server's listener takes agents' upgrades, over HTTP/1.1 and nothing else.
	relay := servers(t, change.Servers, server)
	for version, want := range map[int]bool{1: true, 2: false} {
		transport := speaking(t, &tls.Config{InsecureSkipVerify: true}, version) // It has a key of its own.
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+relay+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(r)
		if err == nil {
			resp.Body.Close()
		}
		if answered := err == nil && resp.ProtoMajor == 1; answered != want {
			t.Errorf("tunnel server over HTTP/%d: %v", version, err)
		}
	}
}

// servers is the address where agents reach a tunnel server.
func servers(t *testing.T, list []types.ClientServer, device types.Device) string {
	t.Helper()
	for _, s := range list {
		if s.ID == device.ID {
			return s.Address
		}
	}
	t.Fatalf("tunnel server %s is not in %+v", device.ID, list)
	return ""
}

func TestListener_WithoutTLSSpeaksHTTP1AndSurvivesTheRest(t *testing.T) {
	p := servertest.Start(t)
	address := strings.TrimPrefix(p.URL, "http://")
	for name, said := range map[string]string{
		"HTTP/2 with prior knowledge": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"TLS":                         "\x16\x03\x01\x00\x05hello\r\n\r\n",
		"HTTP/1.0":                    "GET /readyz HTTP/1.0\r\n\r\n",
		"HTTP/1.1":                    "GET /readyz HTTP/1.1\r\nHost: panel\r\nConnection: close\r\n\r\n",
		"an offer of HTTP/2":          "GET /readyz HTTP/1.1\r\nHost: panel\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
	} {
		conn, err := net.DialTimeout("tcp", address, controltest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(controltest.Patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, said); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		good := strings.HasPrefix(line, "HTTP/1.") && strings.Contains(line, " 200 ")
		if err != nil || good != strings.HasPrefix(said, "GET") {
			t.Errorf("%s: %q, %v", name, line, err)
		}
	}
	if status, version := fetch(t, speaking(t, &tls.Config{}, 1), "GET", p.URL+"/readyz", ""); status != 200 || version != 1 {
		t.Errorf("afterwards: %d over HTTP/%d", status, version)
	}
}

// The contract says which refusals have no body of the panel's.
func TestListener_RefusesMalformedHTTPAsTheContractSays(t *testing.T) {
	p := servertest.Start(t, func(o *server.Options) { o.TunnelServer.Disabled = true })
	address := strings.TrimPrefix(p.URL, "http://")
	for name, test := range map[string]struct {
		said   string
		status int
	}{
		"no request line":            {"nonsense\r\n\r\n", 400},
		"malformed escape in path":   {"GET /api/%zz HTTP/1.1\r\nHost: panel\r\n\r\n", 400},
		"no host":                    {"GET /readyz HTTP/1.1\r\n\r\n", 400},
		"malformed header field":     {"GET /readyz HTTP/1.1\r\nHost: panel\r\nnonsense\r\n\r\n", 400},
		"unknown expectation":        {"GET /readyz HTTP/1.1\r\nHost: panel\r\nExpect: miracles\r\n\r\n", 417},
		"too many header fields":     {"GET /readyz HTTP/1.1\r\nHost: panel\r\nX: " + strings.Repeat("x", 40<<10) + "\r\n\r\n", 431},
		"unsupported coding":         {"POST /api/auth/login HTTP/1.1\r\nHost: panel\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
		"options of the whole panel": {"OPTIONS * HTTP/1.1\r\nHost: panel\r\nConnection: close\r\n\r\n", 200},
		"unsupported version":        {"GET /readyz HTTP/3.0\r\nHost: panel\r\n\r\n", 505},
		"malformed escape in query":  {"GET /api/tunnel/devices?limit=%zz HTTP/1.1\r\nHost: panel\r\nConnection: close\r\n\r\n", 0},
		"an operation's own refusal": {"GET /api/tunnel/devices HTTP/1.1\r\nHost: panel\r\nConnection: close\r\n\r\n", 0},
	} {
		conn, err := net.DialTimeout("tcp", address, controltest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(controltest.Patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, test.said); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(conn) // Until the panel closes the connection.
		if err != nil {
			t.Errorf("%s: %q, %v", name, text, err)
			continue
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), nil)
		if err != nil {
			t.Errorf("%s: %q, %v", name, text, err)
			continue
		}
		resp.Body.Close()
		// Everything that reaches the panel's own code has an id and a body.
		ours := resp.Header.Get("X-Request-Id") != "" && resp.Header.Get("Content-Type") == "application/json"
		if ours != (test.status == 0) || test.status != 0 && resp.StatusCode != test.status {
			t.Errorf("%s: %q, want %d", name, text, test.status)
		}
	}
}
