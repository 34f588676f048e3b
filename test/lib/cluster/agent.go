package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Agent is an agent's installation on a home machine: the binary and its
// configuration, which `eclitunnel enroll` writes.
type Agent struct {
	// Name is the device's name.
	Name string
	// Device is what was approved; set by Enroll.
	Device types.Device
	// Env are settings of its commands besides those of this process, as
	// NAME=value.
	Env []string
	// StartWith starts the process of Start; nil is StartProcess.
	StartWith Starter

	bin    string
	config string
	log    io.Writer
}

// NewAgent returns an installation that is not enrolled yet, with its
// configuration below dir. What its processes print goes to log, unless nil.
func NewAgent(bin, dir, name string, log io.Writer) *Agent {
	return &Agent{Name: name, bin: bin, config: filepath.Join(dir, name, "config.json"), log: log}
}

// NewTunnelServer returns the installation of a tunnel server on a machine of its
// own, that takes agents on a port of 127.0.0.1.
func NewTunnelServer(bin, dir, name string, relay int, log io.Writer) *Agent {
	a := NewAgent(bin, dir, name, log)
	a.Env = []string{"ECLITUNNEL_RELAY_LISTEN=" + loopback(relay)}
	return a
}

// EnrollServer enrolls a tunnel server, which takes an admin.
func (a *Agent) EnrollServer(ctx context.Context, panel *Panel, args ...string) error {
	env := a.Env
	defer func() { a.Env = env }()
	a.Env = append([]string{"ECLITUNNEL_SESSION_TOKEN=" + panel.Token}, env...)
	return a.Enroll(ctx, panel, append([]string{"--kind", "server"}, args...)...)
}

// Copy returns an installation on another machine, with its configuration below dir,
// that has the same enrollment.
func (a *Agent) Copy(dir string) (*Agent, error) {
	other := *a
	other.config = filepath.Join(dir, a.Name, "config.json")
	enrollment, err := os.ReadFile(a.config)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(other.config), 0o700)
	}
	if err == nil {
		err = os.WriteFile(other.config, enrollment, 0o600)
	}
	return &other, err
}

// Config is the path of the installation's configuration.
func (a *Agent) Config() string { return a.config }

// Command is an eclitunnel command line of this installation.
func (a *Agent) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(a.bin, "eclitunnel"), args...)
	cmd.Env = append(append(os.Environ(), "ECLITUNNEL_CONFIG="+a.config), a.Env...)
	return cmd
}

// Run runs a command to its end and returns what it printed for programs; a
// non-zero exit status is an error that says what it printed for people.
func (a *Agent) Run(ctx context.Context, args ...string) (string, error) {
	cmd := a.Command(ctx, args...)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	Kept().noteSettings(cmd.Env)
	out, err := cmd.Output()
	if kept := Kept().Add(a.Name, out, []byte(complaint.String())); kept != nil {
		return string(out), kept
	}
	if err != nil {
		return string(out), fmt.Errorf("eclitunnel %s: %w: %s%s", strings.Join(args, " "), err, out, complaint.String())
	}
	return string(out), nil
}

// Start starts `eclitunnel run`; see Panel.AwaitOnline.
func (a *Agent) Start() (*Process, error) {
	start := a.StartWith
	if start == nil {
		start = StartProcess
	}
	return start(a.Name, a.Command(context.Background(), "run"), a.log)
}

// userCode is how a user code looks to the people who are shown one.
var userCode = regexp.MustCompile(`\b[A-Z]{4}-[0-9]{4}\b`)

// AwaitUserCode waits until an `eclitunnel enroll` shows its user code, and returns it.
func AwaitUserCode(ctx context.Context, process *Process) (code string, err error) {
	err = Until(ctx, "the agent shows its user code", func(context.Context) (bool, error) {
		if code = userCode.FindString(process.Output()); code != "" {
			return true, nil
		}
		select {
		case <-process.Done():
			return false, fmt.Errorf("it ended with exit code %d: %s", process.ExitCode(), process.Output())
		default:
			return false, nil
		}
	})
	return code, err
}

// Enroll runs `eclitunnel enroll` with further arguments, reads the user code it
// shows, approves it as the panel's admin and waits until the agent has stored
// its token.
func (a *Agent) Enroll(ctx context.Context, panel *Panel, args ...string) error {
	args = append([]string{"enroll", "--panel", panel.URL, "--name", a.Name}, args...)
	process, err := StartProcess(a.Name, a.Command(ctx, args...), a.log)
	if err != nil {
		return err
	}
	defer process.Stop() //nolint:errcheck // an enrollment that was left is ended; why it was left is returned
	code, err := AwaitUserCode(ctx, process)
	if err != nil {
		return err
	}
	if a.Device, err = panel.Approve(ctx, code); err != nil {
		return err
	}
	exit, err := process.Wait(ctx)
	if err != nil {
		return err
	}
	if exit != 0 {
		return fmt.Errorf("eclitunnel enroll: exit code %d: %s", exit, process.Output())
	}
	enrollment, err := os.ReadFile(a.config)
	Kept().Received(enrollment)
	return err
}

// Adopt gives the installation a device that the panel's admin creates, and its token, as an
// enrollment would: of a tunnel server if one is given. Enroll waits for the 5 s between two
// polls, which is for tests of something else to save.
func (a *Agent) Adopt(ctx context.Context, panel *Panel, server *types.TunnelServerSettings) error {
	create := types.DeviceCreate{Name: a.Name, Server: server}
	if server != nil {
		kind := types.DeviceKindServer
		create.Kind = &kind
	}
	made, err := panel.API.CreateDeviceWithResponse(ctx, create)
	if err != nil {
		return err
	}
	if made.JSON201 == nil {
		return fmt.Errorf("create device: %s: %s", made.Status(), made.Body)
	}
	a.Device = made.JSON201.Device
	config, err := json.Marshal(map[string]any{
		"panelUrl": panel.URL, "deviceId": a.Device.ID, "name": a.Name, "token": made.JSON201.Token,
	})
	if err != nil {
		return err
	}
	Kept().Received(config)
	if err := os.MkdirAll(filepath.Dir(a.config), 0o700); err != nil {
		return err
	}
	return os.WriteFile(a.config, config, 0o600)
}
