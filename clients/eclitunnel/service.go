package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/kardianos/service"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/agent/local"
)

type serviceCmd struct {
	Install   serviceInstallCmd   `cmd:"" help:"Run the agent as a service, now and after each start of this machine."`
	Uninstall serviceUninstallCmd `cmd:"" help:"Stop the service and remove it. The enrollment stays."`
	Start     serviceStartCmd     `cmd:"" help:"Start the service."`
	Stop      serviceStopCmd      `cmd:"" help:"Stop the service until the machine starts again."`
	Restart   serviceRestartCmd   `cmd:"" help:"Stop the service and start it again."`
	Status    serviceStatusCmd    `cmd:"" help:"Show whether the service is installed, and whether it runs."`
}

// serviceFlags are those of every command about the service.
type serviceFlags struct {
	User bool `env:"-" help:"The service of this user in place of the system's, which needs root. It runs while the user may have services: on Linux from the machine's start, if the user may linger (default: false)."`
}

type serviceInstallCmd struct {
	serviceFlags

	AutoUpdate bool `env:"-" help:"The service replaces the program by a newer signed one of the panel by itself, as run --auto-update does, and may write the program's directory for that (default: false)."`
}

type (
	serviceUninstallCmd struct{ serviceFlags }
	serviceStartCmd     struct{ serviceFlags }
	serviceStopCmd      struct{ serviceFlags }
	serviceRestartCmd   struct{ serviceFlags }
	serviceStatusCmd    struct{ serviceFlags }
)

// serviceName is the service's name in every manager.
const serviceName = "eclitunnel"

const (
	// startTimeout is how long a started service is waited for.
	startTimeout  = 5 * time.Second
	startInterval = 100 * time.Millisecond
)

// Errors about the service.
var (
	errNoManager    = errors.New("this system has no service manager that eclitunnel knows: systemd, OpenRC, launchd, or Windows services. Keep it running yourself, with: eclitunnel run")
	errNotInstalled = errors.New("the service is not installed; install it with: eclitunnel service install")
)

// managers are the service managers that are known, and whether they have services of a
// user.
var managers = map[string]bool{"linux-systemd": true, "linux-openrc": false, "darwin-launchd": true, "windows-service": false}

// Help implements kong's help.
func (*serviceInstallCmd) Help() string {
	return `Uses the enrollment that --config names, or that of this user. With sudo it uses that of root, and if there is none, that of the person who called sudo; the service then runs as that person.

An installed service is installed again with this program and this enrollment, and started again.`
}

// Run implements the command.
func (cmd *serviceInstallCmd) Run(ctx context.Context, a *app, s *settings) error {
	if err := cmd.check(); err != nil {
		return err
	}
	config, owner, err := s.serviceConfig(a, cmd.User)
	if err != nil {
		return err
	}
	svc, err := cmd.service(config, owner, cmd.AutoUpdate)
	if err != nil {
		return err
	}
	if _, err := svc.Status(); !errors.Is(err, service.ErrNotInstalled) {
		if err := svc.Uninstall(); err != nil {
			return fmt.Errorf("replace the service: %w", err)
		}
	}
	if err := svc.Install(); err != nil {
		return fmt.Errorf("install the service: %w", err)
	}
	if err := svc.Restart(); err != nil {
		return fmt.Errorf("the service is installed, but does not start: %w", err)
	}
	if cmd.User {
		a.linger(ctx)
	}
	s.awaitAgent(ctx, a, config)
	return a.sayService(s, serviceState{Installed: true, Running: true}, "The agent runs as a service, now and after each start. Look at it with: eclitunnel status")
}

// Run implements the command.
func (cmd *serviceUninstallCmd) Run(a *app, s *settings) error {
	svc, err := cmd.installed()
	if errors.Is(err, errNotInstalled) {
		return a.sayService(s, serviceState{}, "The service is not installed.")
	}
	if err != nil {
		return err
	}
	if err := errors.Join(svc.Stop(), svc.Uninstall()); err != nil {
		return fmt.Errorf("remove the service: %w", err)
	}
	return a.sayService(s, serviceState{}, "The service is removed. This machine stays enrolled.")
}

// Run implements the command.
func (cmd *serviceStartCmd) Run(ctx context.Context, a *app, s *settings) error {
	return cmd.control(ctx, a, s, service.Service.Start, serviceState{Installed: true, Running: true}, "The service is started.")
}

// Run implements the command.
func (cmd *serviceStopCmd) Run(ctx context.Context, a *app, s *settings) error {
	return cmd.control(ctx, a, s, service.Service.Stop, serviceState{Installed: true}, "The service is stopped. It starts again with the machine, or with: eclitunnel service start")
}

// Run implements the command.
func (cmd *serviceRestartCmd) Run(ctx context.Context, a *app, s *settings) error {
	return cmd.control(ctx, a, s, service.Service.Restart, serviceState{Installed: true, Running: true}, "The service is started again.")
}

// serviceState is what --json prints of a service.
type serviceState struct {
	Installed bool `json:"installed"`
	Running   bool `json:"running"`
	// Failed is why it does not run although it should; "" if it runs, or was stopped.
	Failed string `json:"failed,omitempty"`
}

// Run implements the command.
func (cmd *serviceStatusCmd) Run(a *app, s *settings) error {
	svc, err := cmd.known()
	if err != nil {
		return err
	}
	switch status, err := svc.Status(); {
	case errors.Is(err, service.ErrNotInstalled) && cmd.hasUnit():
		return a.sayService(s, serviceState{Installed: true, Failed: "systemd does not answer this user"},
			"The service is installed, and systemd does not tell this user whether it runs. Ask as root: sudo eclitunnel service status")
	case errors.Is(err, service.ErrNotInstalled):
		return a.sayService(s, serviceState{}, "The service is not installed. Install it with: eclitunnel service install")
	case err != nil:
		return a.sayService(s, serviceState{Installed: true, Failed: err.Error()}, "The service does not run: "+err.Error()+". Its log says why: "+cmd.log())
	case status == service.StatusRunning:
		return a.sayService(s, serviceState{Installed: true, Running: true}, "The service runs. What it does is shown by: eclitunnel status")
	default:
		return a.sayService(s, serviceState{Installed: true}, "The service is stopped. Start it with: eclitunnel service start")
	}
}

// hasUnit reports whether systemd's unit of the service is there, also where systemd does not
// answer, as it does not to users of a system without D-Bus.
func (f serviceFlags) hasUnit() bool {
	dir := "/etc/systemd/system"
	if f.User {
		home, err := os.UserHomeDir()
		if err != nil {
			return false
		}
		dir = filepath.Join(home, ".config", "systemd", "user")
	}
	_, err := os.Stat(filepath.Join(dir, serviceName+".service"))
	return err == nil && service.Platform() == "linux-systemd"
}

// log returns the command that shows the service's log.
func (f serviceFlags) log() string {
	switch service.Platform() {
	case "linux-systemd":
		if f.User {
			return "journalctl --user -u eclitunnel"
		}
		return "journalctl -u eclitunnel"
	case "windows-service":
		return "Get-WinEvent -ProviderName eclitunnel"
	default:
		return "the system log"
	}
}

func (f serviceFlags) control(ctx context.Context, a *app, s *settings, do func(service.Service) error, after serviceState, text string) error {
	svc, err := f.installed()
	if err != nil {
		return err
	}
	if err := do(svc); err != nil {
		return err
	}
	if after.Running {
		if config, _, err := s.serviceConfig(a, f.User); err == nil {
			s.awaitAgent(ctx, a, config)
		}
	}
	return a.sayService(s, after, text)
}

// awaitAgent waits until the agent of an enrollment, which a service has just started, can
// be reached by other commands, or for a while: one that serves nobody locally still serves.
func (s *settings) awaitAgent(ctx context.Context, a *app, config string) {
	enrolled, err := agent.LoadConfig(config)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for ctx.Err() == nil {
		clients, _ := local.Find(ctx, append(s.socketDirs(a), filepath.Dir(config))...)
		for _, c := range clients {
			info, err := c.Info(ctx)
			c.Close()
			if err == nil && info.Device == enrolled.DeviceID {
				cancel()
			}
		}
		_ = a.wait(ctx, startInterval)
	}
}

func (a *app) sayService(s *settings, state serviceState, text string) error {
	if s.JSON {
		return a.printJSON(state)
	}
	a.printf("%s", text)
	return nil
}

// check returns why this user cannot change the service, or nil.
func (f serviceFlags) check() error {
	perUser, known := managers[service.Platform()]
	_, sudo := os.LookupEnv("SUDO_UID")
	switch root := os.Geteuid() == 0; {
	case !known:
		return errNoManager
	case f.User && !perUser:
		return usagef("%s has no services of users; leave --user out", service.Platform())
	case f.User && root && sudo:
		return usagef("with sudo the service would be root's own; leave sudo out, or --user")
	case !f.User && runtime.GOOS != "windows" && !root:
		return usagef("the system's services need root: use sudo, or --user for a service of your own")
	}
	return nil
}

// known returns the service, installed or not.
func (f serviceFlags) known() (service.Service, error) {
	if _, known := managers[service.Platform()]; !known {
		return nil, errNoManager
	}
	return f.service("", nil, false)
}

// installed returns the service, which this user may change.
func (f serviceFlags) installed() (service.Service, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	svc, err := f.known()
	if err != nil {
		return nil, err
	}
	if _, err := svc.Status(); errors.Is(err, service.ErrNotInstalled) {
		return nil, errNotInstalled
	}
	return svc, nil
}

// service returns the service for an enrollment, which runs as its owner; nil is this user.
func (f serviceFlags) service(config string, owner *user.User, autoUpdate bool) (service.Service, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	u := unit{program: program, args: []string{"--config", config, "run"}, config: config, perUser: f.User, autoUpdate: autoUpdate}
	if owner != nil && owner.Uid != "0" && !f.User {
		u.user = owner.Username
	}
	variables := map[string]string{"ECLITUNNEL_STANDBY": "true", "ECLITUNNEL_LOG_LEVEL": "info", "ECLITUNNEL_LOG_FORMAT": "json"}
	if autoUpdate {
		variables["ECLITUNNEL_AUTO_UPDATE"] = "true"
	}
	return service.New(nil, &service.Config{
		Name:        serviceName,
		DisplayName: "EcliTunnel agent",
		Description: "Public ports for game servers behind NAT",
		Executable:  u.program,
		Arguments:   u.args,
		UserName:    u.user,
		EnvVars:     variables,
		Option: service.KeyValue{
			"UserService": f.User,
			"RunAtLoad":   true,
			// The manager's library fills it in as a template.
			"SystemdScript":    strings.ReplaceAll(u.text(), "{{", "{{`{{`}}"),
			"OnFailure":        "restart",
			"DelayedAutoStart": true,
		},
	})
}

// serviceConfig returns the enrollment for a service, and who owns it.
func (s *settings) serviceConfig(a *app, perUser bool) (path string, owner *user.User, err error) {
	path, err = s.path()
	if err != nil {
		return "", nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", nil, err
	}
	if owner, err = user.Current(); err != nil {
		return "", nil, fmt.Errorf("find out who runs this: %w", err)
	}
	_, err = agent.LoadConfig(path)
	if name, _ := a.env("SUDO_USER"); errors.Is(err, agent.ErrNotEnrolled) && s.Config == "" && !perUser && name != "" {
		if person, lookup := user.Lookup(name); lookup == nil {
			of := filepath.Join(person.HomeDir, ".config", "eclitunnel", "config.json")
			if _, theirs := agent.LoadConfig(of); !errors.Is(theirs, agent.ErrNotEnrolled) {
				return of, person, theirs
			}
		}
	}
	if err == nil {
		if of := fileOwner(path); of != nil {
			owner = of
		}
	}
	return path, owner, err
}

// linger lets this user's services run from the machine's start, and says so if it cannot.
func (a *app) linger(ctx context.Context) {
	if service.Platform() != "linux-systemd" {
		return
	}
	err := exec.CommandContext(ctx, "loginctl", "enable-linger").Run()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.warnf("The service starts when you log in, and not with the machine. To have it start with the machine: sudo loginctl enable-linger %s", currentName())
	}
}

func currentName() string {
	if me, err := user.Current(); err == nil {
		return me.Username
	}
	return "USER"
}
