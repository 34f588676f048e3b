//go:build linux

package load

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

const adminPassword = "correct horse battery staple"

// replica is one panel on a Postgres that it may share, without a tunnel server.
type replica struct {
	*cluster.Process
	address string
	url     string
	command func() *exec.Cmd
}

// newReplica returns a panel that is not started yet.
func newReplica(t *testing.T, database *postgres, env ...string) *replica {
	t.Helper()
	port, err := cluster.FreePorts(t.Context(), 1)
	check(t, err)
	r := &replica{address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	r.url = "http://" + r.address
	r.command = func() *exec.Cmd {
		cmd := exec.Command(filepath.Join(binaries, "eclitunneld"), "serve",
			"--listen", r.address, "--public-url", r.url, "--no-tunnel-server", "--log-level", "warn")
		cmd.Env = append(append(os.Environ(),
			"ECLITUNNEL_DATABASE_URL="+database.URL(),
			"ECLITUNNEL_ADMIN_EMAIL="+cluster.AdminEmail,
			"ECLITUNNEL_ADMIN_PASSWORD="+adminPassword), env...)
		return cmd
	}
	return r
}

// start starts the panel, anew where it has ended, and waits until it is ready.
func (r *replica) start(t *testing.T) {
	t.Helper()
	check(t, r.launch())
	await.Within(t, patience, "panel that is ready", func(ctx context.Context) (bool, error) {
		select {
		case <-r.Done():
			t.Fatalf("the panel ended with exit code %d: %s", r.ExitCode(), r.LastLines(10))
		default:
		}
		return ready(ctx, r.url), nil
	})
	clustertest.StopAtEnd(t, r.Process)
}

func (r *replica) launch() (err error) {
	r.Process, err = cluster.StartProcess("eclitunneld", r.command(), nil)
	return err
}

// ready reports whether a panel says that it is.
func ready(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := probes.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// probes asks on a connection of its own each time, as load balancers do.
var probes = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// api calls a panel with a token, "" for none.
func api(t *testing.T, url, token string) *client.ClientWithResponses {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 32}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := client.NewClientWithResponses(url,
		client.WithHTTPClient(&http.Client{Transport: transport}),
		client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			return nil
		}))
	check(t, err)
	return c
}

// logIn returns a session of the admin.
func logIn(t *testing.T, url string) string {
	t.Helper()
	login, err := api(t, url, "").LoginWithResponse(t.Context(), types.LoginRequest{Email: cluster.AdminEmail, Password: adminPassword})
	check(t, err)
	if login.JSON200 == nil {
		t.Fatalf("log in: %s", login.Body)
	}
	return login.JSON200.Token
}
