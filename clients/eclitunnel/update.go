package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/agent/update"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
)

type updateCmd struct {
	Check    bool   `env:"-" help:"Say which version the panel has, and change nothing (default: false)."`
	Unsigned bool   `env:"-" help:"Take a program whose signature this build has no key to check (default: false)."`
	To       string `env:"-" placeholder:"VERSION" help:"Take this version, also if it is older than this one (default: the newest, if it is newer)."`
	Rollback bool   `env:"-" help:"Go back to the program before the last update; a second time undoes that (default: false)."`
}

// updateState is the output of --json.
type updateState struct {
	Current string `json:"current"`
	// Available is the version that the panel has; "" after --rollback.
	Available string `json:"available"`
	Newer     bool   `json:"newer"`  // Available is newer than Current.
	Signed    bool   `json:"signed"` // The signature of what is available was checked.
	// Installed is the version that Program is now.
	Installed string `json:"installed"`
	Program   string `json:"program"`
	Restarted bool   `json:"restarted"` // The service runs it.
}

// Help implements kong's help.
func (*updateCmd) Help() string {
	return `Downloads the program from the panel, checks its signature with the key of this build and its checksum, and runs it, before it takes the place of this one, which stays beside it with the ending .old. A service that runs is restarted, and goes back to the program before if the new one does not reach the panel within a minute.

Without --to it never takes an older version. With --unsigned, whoever can change what the panel sends decides what this machine runs.`
}

// Run implements the command.
func (cmd *updateCmd) Run(ctx context.Context, a *app, s *settings) error {
	if cmd.Rollback && (cmd.Check || cmd.Unsigned || cmd.To != "") {
		return usagef("--rollback goes with none of --check, --unsigned and --to")
	}
	path, err := a.programPath()
	if err != nil {
		return err
	}
	if cmd.Rollback {
		return cmd.rollback(ctx, a, s, path)
	}
	key, err := update.ParseKey(releaseKey)
	if err != nil {
		return err
	}
	c, client, err := s.updatePanel(a)
	if err != nil {
		return err
	}
	defer client.Close()
	release, err := update.Find(ctx, client.Download, update.Query{Key: key, Unsigned: cmd.Unsigned || cmd.Check, Version: cmd.To})
	if err != nil {
		return updateError(err, path)
	}
	state := updateState{
		Current: version, Available: release.Version, Newer: update.Newer(release.Version, version), Signed: release.Signed,
		Installed: version, Program: path,
	}
	if cmd.Check || !cmd.takes(release.Version) {
		return a.sayAvailable(s, state)
	}
	if err := a.replace(ctx, client, release, path); err != nil {
		return updateError(err, path)
	}
	state.Installed = release.Version
	if state.Restarted, err = a.restartService(ctx, path, func(ctx context.Context) error {
		return a.awaitAgent(ctx, client, c, release.Version)
	}); err != nil {
		return err
	}
	if s.JSON {
		return a.printJSON(state)
	}
	a.printf("%s is version %s now; version %s is kept as %s.", path, release.Version, version, filepath.Base(update.Old(path)))
	a.sayRestarted(s, c, state.Restarted)
	return nil
}

// takes reports whether a version is to take the place of this one.
func (cmd *updateCmd) takes(available string) bool {
	if cmd.To != "" {
		return available != version
	}
	return update.Comparable(version) && update.Newer(available, version)
}

// replace installs a release as the program at path.
func (a *app) replace(ctx context.Context, client *tunnel.Client, release update.Release, path string) error {
	fetched, err := release.Fetch(ctx, client.Download, path)
	if err != nil {
		return err
	}
	if err := update.Install(fetched, path); err != nil {
		return errors.Join(err, os.Remove(fetched))
	}
	return nil
}

// sayAvailable prints which version the panel has, and what to do about it.
func (a *app) sayAvailable(s *settings, state updateState) error {
	if s.JSON {
		return a.printJSON(state)
	}
	switch {
	case state.Available == state.Current:
		a.printf("This is version %s, which the panel has too.", state.Current)
	case !update.Comparable(state.Current):
		a.printf("The panel has version %s. This build, %s, is no release, so neither is the newer one. Take the panel's with: eclitunnel update --to %s", state.Available, state.Current, state.Available)
	case state.Newer:
		a.printf("The panel has version %s; this is %s. Install it with: eclitunnel update", state.Available, state.Current)
	default:
		a.printf("The panel has the older version %s; this is %s. Go back to that with: eclitunnel update --to %s", state.Available, state.Current, state.Available)
	}
	if key, err := update.ParseKey(releaseKey); err == nil && !key.Known() {
		a.printf("This build cannot check signatures, so that an update needs --unsigned.")
	}
	return nil
}

// rollback goes back to the program before the last update.
func (*updateCmd) rollback(ctx context.Context, a *app, s *settings, path string) error {
	if err := update.Swap(path); err != nil {
		return updateError(err, path)
	}
	state := updateState{Current: version, Program: path}
	var err error
	if state.Installed, err = update.VersionOf(ctx, path); err != nil {
		return errors.Join(fmt.Errorf("the program before: %w", err), update.Swap(path))
	}
	if state.Restarted, err = a.restartService(ctx, path, nil); err != nil {
		return err
	}
	if s.JSON {
		return a.printJSON(state)
	}
	a.printf("%s is version %s again; version %s is kept as %s.", path, state.Installed, version, filepath.Base(update.Old(path)))
	c, _ := s.identity(a) // Without one, no agent is known here.
	a.sayRestarted(s, c, state.Restarted)
	return nil
}

// sayRestarted prints what runs now, or what to restart.
func (a *app) sayRestarted(s *settings, c agent.Config, restarted bool) {
	stateDir, _ := a.variable("ECLITUNNEL_STATE_DIR") // The flag is one of run.
	here, known := agent.FindInstance(s.claimDirs(a, stateDir), c.DeviceID)
	switch {
	case restarted:
		a.printf("The service runs it.")
	case known && here.State != agent.InstanceStopped:
		a.printf("The agent on this machine%s still runs the program from before: stop it and start it again.", pid(&here))
	}
}

// programPath returns the path of the program that an update replaces.
func (a *app) programPath() (string, error) {
	if a.program != "" {
		return a.program, nil
	}
	return update.Program()
}

// updatePanel returns a client of the panel that hands out the program, and the enrollment,
// which is empty where --panel alone names the panel.
func (s *settings) updatePanel(a *app) (agent.Config, *tunnel.Client, error) {
	c, err := s.identity(a)
	if errors.Is(err, agent.ErrNotEnrolled) {
		// With sudo, the enrollment of who called it counts, as for a service.
		if path, _, others := s.serviceConfig(a, false); others == nil {
			c, err = agent.LoadConfig(path)
			s.applyPanel(&c)
		}
	}
	if errors.Is(err, agent.ErrNotEnrolled) && s.Panel != "" {
		c, err = agent.Config{}, nil
		s.applyPanel(&c)
	}
	if err != nil {
		return agent.Config{}, nil, err
	}
	client, err := a.client(c)
	return c, client, err
}

// updateError says what a person can do about an error of an update of the program at path.
func updateError(err error, path string) error {
	switch {
	case errors.Is(err, update.ErrNoKey):
		return usagef("%w. To take one all the same, add --unsigned: whoever can change what the panel sends then decides what this machine runs", err)
	case errors.Is(err, update.ErrSignature), errors.Is(err, update.ErrChecksum):
		return fmt.Errorf("%w. Nothing was changed. Tell who runs the panel", err)
	case errors.Is(err, update.ErrNoOld):
		return fmt.Errorf("%w: there is no %s", err, update.Old(path))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this user may not replace %s: %w. Use sudo, or as an administrator; where a package manager has installed it, update the package", path, err)
	default:
		return err
	}
}
