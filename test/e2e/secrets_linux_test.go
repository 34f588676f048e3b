package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

// tap passes connections on to a panel, and notes the secrets in what passes.
type tap struct {
	listener net.Listener
	passing  sync.WaitGroup
	mu       sync.Mutex
	open     []net.Conn
}

func newTap(t *testing.T, panel string) *tap {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{listener: listener}
	p.passing.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", panel)
			if err != nil {
				near.Close()
				continue
			}
			p.mu.Lock()
			p.open = append(p.open, near, far)
			p.mu.Unlock()
			for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
				p.passing.Go(func() {
					var passed bytes.Buffer
					_, _ = io.Copy(pair[0], io.TeeReader(pair[1], &passed))
					near.Close()
					far.Close()
					cluster.Kept().Received(passed.Bytes())
				})
			}
		}
	})
	return p
}

// close ends every connection, and returns when all that passed is noted.
func (p *tap) close() {
	p.listener.Close()
	p.mu.Lock()
	for _, conn := range p.open {
		conn.Close()
	}
	p.mu.Unlock()
	p.passing.Wait()
}

// caller sends requests as a browser or a script would, and has their answers noted.
type caller struct {
	t    *testing.T
	url  string
	http http.Client
}

// ask sends a body, nil for none, and returns the answer's.
func (c *caller) ask(method, path string, body any, headers ...string) map[string]any {
	c.t.Helper()
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			c.t.Fatal(err)
		}
		reader = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(within(c.t, patience), method, c.url+path, reader)
	if err != nil {
		c.t.Fatal(err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	answer, err := c.http.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	fields := map[string]any{}
	// Some answers are a list, or no JSON: nobody asks for their fields.
	_ = json.NewDecoder(answer.Body).Decode(&fields)
	return fields
}

// text returns a field of an answer that must be there.
func (c *caller) text(answer map[string]any, field string) string {
	c.t.Helper()
	value, ok := answer[field].(string)
	if !ok {
		c.t.Fatalf("no %s in %v", field, answer)
	}
	return value
}

// secretOf returns the part of a one-time link that no server gets.
func (c *caller) secretOf(answer map[string]any) string {
	c.t.Helper()
	_, secret, _ := strings.Cut(c.text(answer, "url"), "#")
	cluster.Kept().Secret("one-time link", secret)
	return secret
}

// awkward is a password that logs show in another form each.
const awkward = `pä"ss\w/ö+rd %&=<x>` + "\t"

// usePeoplesSecrets uses a secret of each kind that people and programs have, well and wrongly.
func (c *caller) usePeoplesSecrets(session string) {
	c.t.Helper()
	admin := []string{"Authorization", "Bearer " + session}
	person := c.ask("POST", "/api/users", map[string]any{"email": "ada@example.com"}, admin...)
	user, ok := person["user"].(map[string]any)
	if !ok {
		user = person
	}
	id, err := json.Marshal(user["id"])
	if err != nil {
		c.t.Fatal(err)
	}
	link := c.secretOf(c.ask("POST", "/api/users/"+string(id)+"/password-link", nil, admin...))
	password := awkward + rand.Text()
	cluster.Kept().Secret("password of a person", password)
	c.ask("POST", "/api/auth/set-password", map[string]any{"token": link + "x", "password": password})
	c.ask("POST", "/api/auth/set-password", map[string]any{"token": link, "password": password})
	login := map[string]any{"email": "ada@example.com", "password": password}
	own := c.text(c.ask("POST", "/api/auth/login", login), "token")
	for _, wrong := range []any{
		map[string]any{"email": "ada@example.com", "password": password + "x"},
		map[string]any{"email": password, "password": password},
		map[string]any{"email": "ada@example.com", "password": []string{password}},
		password,
	} {
		c.ask("POST", "/api/auth/login", wrong)
	}

	organisation := c.ask("POST", "/api/organisations", map[string]any{"name": "Guild"}, admin...)
	id, err = json.Marshal(organisation["id"])
	if err != nil {
		c.t.Fatal(err)
	}
	invitation := c.secretOf(c.ask("POST", "/api/organisations/"+string(id)+"/invitations", map[string]any{"role": "member"}, admin...))
	c.ask("POST", "/api/invitations/look-up", map[string]any{"token": invitation})
	c.ask("POST", "/api/invitations/accept", map[string]any{"token": invitation}, "Authorization", "Bearer "+own)

	key := c.text(c.ask("POST", "/api/keys", map[string]any{"name": "script", "scopes": []string{"read"}}, admin...), "key")
	for _, credential := range []string{own, key, own + "x", key + "x"} {
		c.ask("GET", "/api/tunnel/devices", nil, "Authorization", "Bearer "+credential)
		c.ask("GET", "/api/tunnel/devices", nil, "X-API-Key", credential)
		c.ask("GET", "/api/tunnel/devices", nil, "Cookie", "session="+credential)
		c.ask("GET", "/api/tunnel/devices", nil, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("ada:"+credential)))
		c.ask("GET", "/api/tunnel/devices?token="+credential, nil)
		c.ask("POST", "/api/tunnel/device/start", map[string]any{"name": "x", "token": credential})
	}

	device := c.text(c.ask("POST", "/api/tunnel/device/start", map[string]any{"name": "left-alone"}), "deviceCode")
	for _, code := range []string{device, device, device + "x"} {
		c.ask("GET", "/api/tunnel/device/poll?deviceCode="+code, nil)
		c.ask("POST", "/api/tunnel/device/approve", map[string]any{"userCode": code}, admin...)
	}
}

// noteSeeds notes what the panel's database keeps secret.
func (w *world) noteSeeds(t *testing.T) {
	t.Helper()
	address, err := os.ReadFile(filepath.Join(w.dir, "panel", "database.url"))
	if err != nil {
		t.Fatal(err)
	}
	for kind, query := range map[string]string{
		"signing seed": "SELECT encode(seed, 'hex') FROM signing_keys",
		"login secret": "SELECT encode(login_secret, 'hex') FROM settings",
	} {
		out := command(t, patience, "psql", "-XqAt", "-d", string(address), "-c", query)
		for line := range strings.Lines(out) {
			seed, err := hex.DecodeString(strings.TrimSpace(line))
			if err != nil || len(seed) == 0 {
				t.Fatalf("%s: %q: %v", kind, line, err)
			}
			cluster.Kept().Secret(kind, string(seed))
		}
	}
}

// The search at the end of all tests covers what this one uses; see TestMain. Here is a secret of each kind, of
// which other tests may use none, with every log at its most talkative.
func TestSecrets_AreInNoLogWhateverTheyAreUsedFor(t *testing.T) {
	find(t, "psql")
	var settings []string
	w := makeWorld(t, embedded, func(o *cluster.PanelOptions) {
		o.Env = []string{"ECLITUNNEL_LOG_LEVEL=debug", "ECLITUNNEL_LOG_FORMAT=json"}
		o.Start = func(name string, cmd *exec.Cmd, copyTo io.Writer) (*cluster.Process, error) {
			cmd.Env = append(cmd.Env, settings...)
			return cluster.StartProcess(name, cmd, copyTo)
		}
	})
	w.noteSeeds(t)
	people := &caller{t, w.panel.URL, http.Client{Transport: cluster.Kept().Transport(nil)}}
	people.ask("POST", "/api/auth/login", map[string]any{"email": cluster.AdminEmail, "password": w.panel.Password})
	people.usePeoplesSecrets(w.panel.Token)

	// What an agent sends and gets.
	listened := newTap(t, strings.TrimPrefix(w.panel.URL, "http://"))
	through := *w.panel
	through.URL = "http://" + listened.listener.Addr().String()
	agent := cluster.NewAgent(binaries, w.dir, "overheard", nil)
	agent.Env = []string{"ECLITUNNEL_LOG_LEVEL=debug"}
	if err := agent.Enroll(within(t, patience), &through); err != nil {
		t.Fatal(err)
	}
	process, err := agent.Start()
	if err != nil {
		t.Fatal(err)
	}
	clustertest.StopAtEnd(t, process)
	if err := w.panel.AwaitOnline(within(t, patience), agent.Device.ID, process); err != nil {
		t.Fatal(err)
	}
	served, game := *w, startEcho(t)
	served.agent = agent
	if err := plays(within(t, patience), served.expose(t, types.CreateTCP, game.port, nil)); err != nil {
		t.Error(err)
	}
	listened.close()

	// The keys at rest, and the panel's next start with its agents' tokens.
	secretKeys := filepath.Join(t.TempDir(), "secret-keys")
	key := make([]byte, 32)
	_, _ = rand.Read(key) // It never fails.
	writeFile(t, secretKeys, []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600)
	cluster.Kept().Secret("secret key", string(key))
	settings = []string{"ECLITUNNEL_SECRET_KEY_FILE=" + secretKeys}
	if err := w.panel.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := w.panel.Restart(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}

	w.awaitNoDatabase(t)
	for _, kind := range []string{
		"ECLITUNNEL_ADMIN_PASSWORD", "ECLITUNNEL_DATABASE_URL", "ECLITUNNEL_SECRET_KEY_FILE", "password of a person",
		"token", "session", "known_browser", "deviceCode", "ticket", "API key", "one-time link",
		"signing seed", "login secret", "secret key",
	} {
		if cluster.Kept().Kinds()[kind] == 0 {
			t.Errorf("no secret of the kind %s was used: %v", kind, cluster.Kept().Kinds())
		}
	}
}

// awaitNoDatabase starts a panel whose database does not answer, until it says so.
func (w *world) awaitNoDatabase(t *testing.T) {
	t.Helper()
	cmd := exec.Command(filepath.Join(binaries, "eclitunneld"), "serve", "--listen", loopback(freePort(t)), "--no-tunnel-server")
	cmd.Env = append(os.Environ(), "ECLITUNNEL_LOG_LEVEL=debug",
		"ECLITUNNEL_DATABASE_URL=postgres://panel:"+rand.Text()+"%2F%25@"+loopback(freePort(t))+"/panel?sslmode=disable")
	process, err := cluster.StartProcess("eclitunneld-without-database", cmd, nil)
	if err != nil {
		t.Fatal(err)
	}
	clustertest.StopAtEnd(t, process)
	await.Within(t, patience, "log line about the missing database", func(context.Context) (bool, error) {
		return strings.Contains(process.Output(), "waiting for the database"), nil
	})
}
