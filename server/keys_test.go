package server_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// keyOf returns the id of the key that signed a token.
func keyOf(t *testing.T, token string) string {
	t.Helper()
	head, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		t.Fatal(err)
	}
	var header struct{ Kid string }
	if err := json.Unmarshal(text, &header); err != nil {
		t.Fatal(err)
	}
	return header.Kid
}

func kids(keys []types.JWK) []string {
	var ids []string
	for _, key := range keys {
		ids = append(ids, key.Kid)
	}
	return ids
}

// twoPanels starts two panels on one database, without embedded tunnel servers.
func twoPanels(t *testing.T) (url string, a, b *servertest.Panel) {
	t.Helper()
	url = dbtest.URL(t)
	start := func() *servertest.Panel {
		return servertest.Start(t, func(o *server.Options) {
			o.Database.URL = url
			o.TunnelServer.Disabled = true
		})
	}
	return url, start(), start()
}

func relayEndpoint(port int) types.RelayEndpoint {
	return types.RelayEndpoint{Port: port, Fingerprint: strings.Repeat("ab", 32)}
}

func TestPanels_RotateTheirKeyWithoutInterruption(t *testing.T) {
	url, a, b := twoPanels(t)
	d := dbtest.Open(t, url)
	connections := dbtest.SQL(t, d)
	device := a.Enroll("gaming-rig")
	edge := b.ConnectServer(b.EnrollServer("edge", nil), relayEndpoint(7443))
	first := controltest.Next[types.ServerSnapshot](edge).Keys.Keys
	if len(first) != 1 {
		t.Fatalf("keys %+v", first)
	}

	// After a month, one of the replicas rotates the key.
	_, err := connections.ExecContext(t.Context(),
		`UPDATE signing_keys SET created_at = created_at - interval '31 days', signs_from = signs_from - interval '31 days'`)
	if err != nil {
		t.Fatal(err)
	}
	third := servertest.Start(t, func(o *server.Options) {
		o.Database.URL = url
		o.TunnelServer.Disabled = true
	})
	both := controltest.Next[types.ServerChange](edge).Keys
	if both == nil || len(both.Keys) != 2 {
		t.Fatalf("the tunnel server received %+v", both)
	}
	for _, p := range []*servertest.Panel{a, b, third} {
		controltest.Eventually(t, "the next key is published", func() bool { return slices.Equal(jwks(t, p), both.Keys) })
	}
	if got := keyOf(t, a.Login()); got != first[0].Kid {
		t.Errorf("key %s signs before its time", got)
	}

	// A day later it signs on every replica, and the tokens of the first key stay valid.
	_, err = connections.ExecContext(t.Context(), `UPDATE signing_keys SET created_at = created_at - interval '25 hours',
		signs_from = signs_from - interval '25 hours'`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := connections.ExecContext(t.Context(), `SELECT pg_notify('eclitunnel', 'keys')`); err != nil {
		t.Fatal(err)
	}
	var session string
	controltest.Eventually(t, "the next key signs", func() bool {
		session = a.Login()
		return keyOf(t, session) != first[0].Kid
	})
	if resp, err := b.Client(session).GetSessionWithResponse(t.Context()); err != nil || resp.JSON200 == nil {
		t.Errorf("a session of another replica: %v %s", err, resp.Body)
	}
	if keyOf(t, device.Token) != first[0].Kid {
		t.Fatal("the device's token was signed with the wrong key")
	}
	agent := b.Connect(device)
	controltest.Next[types.ClientSnapshot](agent)

	// A connected tunnel server has received the key that signs tickets.
	created := allocate(t, a.Client(session), device, types.CreateTCP)
	change := controltest.Next[types.ClientChange](agent)
	if len(change.Servers) != 1 || change.Servers[0].ID != created.ServerID {
		t.Fatalf("change %+v", change)
	}
	if got := keyOf(t, change.Servers[0].Ticket); got == first[0].Kid || !slices.Contains(kids(both.Keys), got) {
		t.Errorf("the ticket is signed by %s", got)
	}
}

func TestRevokeKeys_RevokesWhatAKeySignedOnEveryReplica(t *testing.T) {
	url, a, b := twoPanels(t)
	session := a.Login()
	leaked := keyOf(t, session)
	device := a.Enroll("gaming-rig")
	edgeDevice := b.EnrollServer("edge", nil)
	edge := a.ConnectServer(edgeDevice, relayEndpoint(7443))
	controltest.Next[types.ServerSnapshot](edge)
	agent := b.Connect(device)
	controltest.Next[types.ClientSnapshot](agent)

	database := server.Database{URL: url}
	if _, err := server.RevokeKeys(t.Context(), database, []string{"mistyped"}, nil); !errors.Is(err, server.ErrNoKey) {
		t.Errorf("an unknown key: %v", err)
	}
	revocation, err := server.RevokeKeys(t.Context(), database, []string{leaked}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(revocation.Devices) != 2 || revocation.Unknown != 0 {
		t.Errorf("got %+v", revocation)
	}
	for name, peer := range map[string]*controltest.Peer{"agent": agent, "tunnel server": edge} {
		if code := peer.Closed(time.Second); code != channel.CloseTokenDead {
			t.Errorf("the %s was closed with %d", name, code)
		}
	}
	keys, err := server.Keys(t.Context(), database, nil)
	if err != nil || len(keys) != 1 || keys[0].ID == leaked || keys[0].State != types.SigningKeyStateSigns {
		t.Fatalf("keys %+v, %v", keys, err)
	}
	for _, p := range []*servertest.Panel{a, b} {
		controltest.Eventually(t, "the leaked key is gone", func() bool { return slices.Equal(kids(jwks(t, p)), []string{keys[0].ID}) })
		resp, err := p.Client(session).GetSessionWithResponse(t.Context())
		if err != nil || resp.StatusCode() != http.StatusUnauthorized {
			t.Errorf("a session that it signed: %v %s", err, resp.Body)
		}
		if ws, err := p.Dial(t.Context(), device.Token); err == nil || !strings.HasPrefix(err.Error(), "401") {
			t.Errorf("a device token that it signed: %v", err)
			if err == nil {
				ws.Close()
			}
		}
	}
	// With a new token from any replica, the device can connect to any.
	again, err := a.Admin().RegenerateDeviceTokenWithResponse(t.Context(), device.ID)
	if err != nil || again.JSON200 == nil {
		t.Fatalf("regenerate: %v %s", err, again.Body)
	}
	controltest.Next[types.ClientSnapshot](b.Connect(servertest.Device{ID: device.ID, Token: again.JSON200.Token}))
}

func TestPanel_AcceptsTokensOfANewKeyWithoutANotification(t *testing.T) {
	url, a, b := twoPanels(t)
	d := dbtest.Open(t, url)
	device := a.Enroll("gaming-rig")
	// Another key signs from now on, and b receives no notification.
	_, err := dbtest.SQL(t, d).ExecContext(t.Context(),
		`INSERT INTO signing_keys (id, seed, created_at) VALUES ('unheard-of', decode(repeat('42', 32), 'hex'), now())`)
	if err != nil {
		t.Fatal(err)
	}
	c := servertest.Start(t, func(o *server.Options) {
		o.Database.URL = url
		o.TunnelServer.Disabled = true
	})
	again, err := c.Admin().RegenerateDeviceTokenWithResponse(t.Context(), device.ID)
	if err != nil || again.JSON200 == nil {
		t.Fatalf("regenerate: %v %s", err, again.Body)
	}
	device.Token = again.JSON200.Token
	if got := keyOf(t, device.Token); got != "unheard-of" {
		t.Fatalf("signed by %s", got)
	}
	controltest.Next[types.ClientSnapshot](b.Connect(device))
	rows, err := d.SigningKeys(t.Context())
	if err != nil || len(rows) != 2 || rows[0].RetiredAt != nil {
		t.Errorf("keys %+v, %v", rows, err)
	}
}

func TestPanel_NeedsTheFileOfItsSecretKeys(t *testing.T) {
	url := dbtest.URL(t)
	file := func(b byte) string {
		path := filepath.Join(t.TempDir(), "secret-keys")
		text := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32))
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	right := file(1)
	with := func(path string) func(*server.Options) {
		return func(o *server.Options) {
			o.Database.URL, o.Database.SecretKeyFile = url, path
			o.TunnelServer.Disabled = true
		}
	}
	before := servertest.Start(t, with(""))
	session := before.Login()
	before.Stop()
	servertest.Start(t, with(right)).Stop()
	again := servertest.Start(t, with(right))
	if resp, err := again.Client(session).GetSessionWithResponse(t.Context()); err != nil || resp.JSON200 == nil {
		t.Errorf("a session from before the keys were encrypted: %v %s", err, resp.Body)
	}
	again.Stop()

	for name, c := range map[string]struct{ path, want string }{
		"no file":             {"", "encrypted"},
		"another key":         {file(2), "encrypted"},
		"a file that is gone": {filepath.Join(t.TempDir(), "gone"), "gone"},
		"a file without keys": {os.DevNull, "no key"},
	} {
		o := server.Options{Logger: slog.New(slog.DiscardHandler), Listen: "127.0.0.1:0", TunnelServer: server.TunnelServer{Disabled: true}}
		o.Database = server.Database{URL: url, SecretKeyFile: c.path}
		p, err := server.New(o)
		if err == nil {
			err = p.Run(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
