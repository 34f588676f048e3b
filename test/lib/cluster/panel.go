package cluster

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// AdminEmail is the address of the admin that every panel here is given.
const AdminEmail = "admin@example.com"

// startPatience is how long a panel may take to be ready: its Postgres makes a
// database cluster first, on a machine that may be busy.
const startPatience = 2 * time.Minute

// PanelOptions say how to run a panel.
type PanelOptions struct {
	// Bin is the directory of the binaries.
	Bin string
	// Dir is where its data is kept; see NewDir.
	Dir string
	// Listen and Relay are its ports on 127.0.0.1. A Relay of 0 runs no tunnel
	// server inside the panel.
	Listen, Relay int
	// PlainStreams has its tunnel server do without the encryption of streams.
	PlainStreams bool
	// PortFirst and PortLast bound the public ports it chooses from.
	PortFirst, PortLast int
	// Host is the address that it listens on, and that players enter where it has
	// a tunnel server inside; empty is 127.0.0.1.
	Host string
	// PublicURL is where it is reached, if not where it listens.
	PublicURL string
	// Env are settings besides those of this process and the above, as NAME=value.
	Env []string
	// Log is given what the panel prints; nil keeps only its end.
	Log io.Writer
	// Start starts its process; nil is StartProcess.
	Start Starter
}

func (o PanelOptions) address(port int) string {
	return net.JoinHostPort(cmp.Or(o.Host, "127.0.0.1"), strconv.Itoa(port))
}

// Panel is a running panel and its admin's account.
type Panel struct {
	*Process
	// URL is where it serves the API.
	URL string
	// Password is the admin's.
	Password string
	// API calls the panel as its admin; Token is the session it does so with.
	API   *client.ClientWithResponses
	Token string

	options PanelOptions
}

// StartPanel starts a panel on a directory, new or used before, waits until it
// is ready and logs its admin in.
func StartPanel(ctx context.Context, o PanelOptions) (*Panel, error) {
	p := NewPanel(o)
	if err := p.start(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// NewPanel returns a panel that does not run yet; see Launch.
func NewPanel(o PanelOptions) *Panel {
	return &Panel{URL: "http://" + o.address(o.Listen), Password: rand.Text(), options: o}
}

// Restart starts the panel again, once its process has ended, on the same
// directory and ports.
func (p *Panel) Restart(ctx context.Context) error { return p.start(ctx) }

func (p *Panel) start(ctx context.Context) error {
	if err := p.Launch(); err != nil {
		return err
	}
	if err := p.LogIn(ctx); err != nil {
		return fmt.Errorf("%w\n%s", errors.Join(err, p.Stop()), p.LastLines(30))
	}
	return nil
}

// Launch starts the panel's process and waits for nothing.
func (p *Panel) Launch() error {
	o := p.options
	url, start := o.PublicURL, o.Start
	if url == "" {
		url = p.URL
	}
	if start == nil {
		start = StartProcess
	}
	args := []string{
		"serve",
		"--listen", o.address(o.Listen),
		"--public-url", url,
		"--public-host", cmp.Or(o.Host, "127.0.0.1"),
		"--port-range", fmt.Sprintf("%d-%d", o.PortFirst, o.PortLast),
		"--data-dir", p.dataDir(),
	}
	if o.Relay == 0 {
		args = append(args, "--no-tunnel-server")
	} else {
		args = append(args, "--relay-listen", o.address(o.Relay))
	}
	if o.PlainStreams {
		args = append(args, "--plain-streams")
	}
	//nolint:noctx // it outlives the call that starts it, and is ended by Stop
	cmd := exec.Command(filepath.Join(o.Bin, "eclitunneld"), args...)
	cmd.Env = append(os.Environ(),
		"ECLITUNNEL_ADMIN_EMAIL="+AdminEmail,
		"ECLITUNNEL_ADMIN_PASSWORD="+p.Password,
	)
	cmd.Env = append(cmd.Env, o.Env...)
	process, err := start("eclitunneld", cmd, o.Log)
	if err != nil {
		return err
	}
	p.Process = process
	return nil
}

func (p *Panel) dataDir() string { return filepath.Join(p.options.Dir, "panel") }

// KillPostgres ends the panel's Postgres as a power cut would, whether the panel
// runs or not.
func (p *Panel) KillPostgres() error {
	content, err := os.ReadFile(filepath.Join(p.dataDir(), "cluster", "postmaster.pid"))
	if err != nil {
		return err
	}
	line, _, _ := strings.Cut(string(content), "\n") // postmaster.pid's first line is the process's id.
	pid, err := strconv.Atoi(line)
	if err != nil {
		return err
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return process.Kill()
}

// AwaitReady waits until the panel serves. It is an error if its process ends.
func (p *Panel) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	api, err := client.NewClientWithResponses(p.URL)
	if err != nil {
		return err
	}
	err = Until(ctx, "the panel is ready", func(ctx context.Context) (bool, error) {
		select {
		case <-p.Done():
			return false, fmt.Errorf("it ended with exit code %d", p.ExitCode())
		default:
		}
		ready, err := api.GetReadinessWithResponse(ctx)
		return err == nil && ready.StatusCode() == http.StatusOK, nil
	})
	if err != nil {
		return err
	}
	return p.keepPostgresLog()
}

// keepPostgresLog keeps the log of its Postgres, which errors of statements are in. A panel with a
// database URL has none.
func (p *Panel) keepPostgresLog() error {
	err := Kept().Link(filepath.Join(p.dataDir(), "postgres.log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// LogIn waits until the panel is ready and logs its admin in.
func (p *Panel) LogIn(ctx context.Context) error {
	if err := p.AwaitReady(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	api, err := client.NewClientWithResponses(p.URL, client.WithHTTPClient(&http.Client{Transport: Kept().Transport(nil)}))
	if err != nil {
		return err
	}
	login, err := api.LoginWithResponse(ctx, types.LoginRequest{Email: AdminEmail, Password: p.Password})
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	if login.JSON200 == nil {
		return fmt.Errorf("log in: %s: %s", login.Status(), login.Body)
	}
	p.Token = login.JSON200.Token
	p.API, err = NewClient(p.URL, p.Token)
	return err
}

// LiftRules lets players take what they like. The defaults are for homes, and tests
// have more players at one address than any home.
func (p *Panel) LiftRules(ctx context.Context) error {
	most := nullable.NewNullableWithValue(types.MaxRuleLimitsMaxPlayers)
	perSecond := nullable.NewNullableWithValue(int(types.MaxRuleLimitsDatagramsPerSecondPerSource))
	answer, err := p.API.UpdateSettingsWithResponse(ctx, types.SettingsPatch{Rules: &types.RuleSettingsPatch{
		Defaults: &types.RuleLimits{
			MaxPlayers: most, MaxPlayersPerSource: most, MaxFlowsPerSource: most,
			ConnectionsPerSecond: most, ConnectionsPerSecondPerSource: most, DatagramsPerSecondPerSource: perSecond,
		},
	}})
	if err != nil {
		return fmt.Errorf("lift rules: %w", err)
	}
	if answer.JSON200 == nil {
		return fmt.Errorf("lift rules: %s: %s", answer.Status(), answer.Body)
	}
	return nil
}

// NewClient returns a client of the panel at url that sends a token.
func NewClient(url, token string) (*client.ClientWithResponses, error) {
	return client.NewClientWithResponses(url,
		client.WithHTTPClient(&http.Client{Transport: Kept().Transport(nil)}),
		client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+token)
			return nil
		}))
}

// Approve approves the device whose user code it is.
func (p *Panel) Approve(ctx context.Context, userCode string) (types.Device, error) {
	answer, err := p.API.ApproveDeviceWithResponse(ctx, types.DeviceApproval{UserCode: userCode})
	if err != nil {
		return types.Device{}, fmt.Errorf("approve %s: %w", userCode, err)
	}
	if answer.JSON200 == nil {
		return types.Device{}, fmt.Errorf("approve %s: %s: %s", userCode, answer.Status(), answer.Body)
	}
	return answer.JSON200.Device, nil
}

// AwaitOnline waits until a device's agent has connected; it is an error if the
// agent ends before.
func (p *Panel) AwaitOnline(ctx context.Context, device uuid.UUID, agent *Process) error {
	return Until(ctx, "the agent is online", func(ctx context.Context) (bool, error) {
		select {
		case <-agent.Done():
			return false, fmt.Errorf("it ended with exit code %d", agent.ExitCode())
		default:
		}
		answer, err := p.API.GetDeviceWithResponse(ctx, device)
		if err != nil {
			return false, err
		}
		if answer.JSON200 == nil {
			return false, fmt.Errorf("get device: %s: %s", answer.Status(), answer.Body)
		}
		return answer.JSON200.Online, nil
	})
}

// Allocations lists a device's allocations that lead to a local port.
func (p *Panel) Allocations(ctx context.Context, device uuid.UUID, localPort int) ([]types.Allocation, error) {
	answer, err := p.API.ListAllocationsWithResponse(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list allocations: %w", err)
	}
	if answer.JSON200 == nil {
		return nil, fmt.Errorf("list allocations: %s: %s", answer.Status(), answer.Body)
	}
	var found []types.Allocation
	for _, a := range *answer.JSON200 {
		if a.DeviceID == device && a.LocalPort == localPort {
			found = append(found, a)
		}
	}
	return found, nil
}

// AwaitListening waits until n allocations of a device lead to a local port and
// players can join on each, and returns them.
func (p *Panel) AwaitListening(ctx context.Context, device uuid.UUID, localPort, n int) ([]types.Allocation, error) {
	var found []types.Allocation
	err := Until(ctx, fmt.Sprintf("%d allocations of port %d are listening", n, localPort),
		func(ctx context.Context) (_ bool, err error) {
			if found, err = p.Allocations(ctx, device, localPort); err != nil {
				return false, err
			}
			for _, a := range found {
				if a.Status != types.AllocationListening {
					return false, nil
				}
			}
			return len(found) == n, nil
		})
	if err != nil {
		return nil, fmt.Errorf("%w; they are %s", err, describe(found))
	}
	return found, nil
}

func describe(allocations []types.Allocation) string {
	text := ""
	for _, a := range allocations {
		text += fmt.Sprintf("[%s %d: %s]", a.Protocol, a.Port, a.Status)
		if reason, err := a.StatusReason.Get(); err == nil {
			text += " because " + reason
		}
	}
	return text
}
