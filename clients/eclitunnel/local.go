package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/agent/local"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
)

// localTimeout bounds the questions to agents of this machine before a command begins.
const localTimeout = 5 * time.Second

// errOthersAgent is the error of commands that find an agent which does not let them in.
var errOthersAgent = errors.New("an agent runs on this machine for another user; run this command as that user, or with sudo")

// socketDirs returns the directories in which agents of this machine listen that this
// user may talk to.
func (s *settings) socketDirs(a *app) []string {
	if s.SocketDir != "" {
		return []string{s.SocketDir}
	}
	stateDir, _ := a.variable("ECLITUNNEL_STATE_DIR") // The flag is one of run.
	return append(s.claimDirs(a, stateDir), local.CommonDir)
}

// found is a running agent of this machine.
type found struct {
	*local.Client
	info local.Info
}

// agents returns the running agents of this machine that let this user in.
func (s *settings) agents(ctx context.Context, a *app) ([]found, error) {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	clients, err := local.Find(ctx, s.socketDirs(a)...)
	var all []found
	for _, c := range clients {
		info, err := c.Info(ctx)
		if err != nil || s.Panel != "" && !samePanel(s.Panel, info.Panel) {
			c.Close()
			continue
		}
		all = append(all, found{c, info})
	}
	if errors.Is(err, local.ErrNotAllowed) {
		err = errOthersAgent
	}
	return all, err
}

// theAgent returns the one running agent of this machine, or of a device if there is one
// with that id. Without any it returns nil.
func (s *settings) theAgent(ctx context.Context, a *app, enrolled agent.Config) (*found, error) {
	all, err := s.agents(ctx, a)
	if err != nil {
		return nil, err
	}
	var chosen *found
	names := make([]string, len(all))
	for i := range all {
		names[i] = deviceLabel(all[i].info.Name, all[i].info.Device)
		if all[i].info.Device == enrolled.DeviceID {
			chosen = &all[i]
		}
	}
	if chosen == nil && len(all) == 1 && enrolled.Token == "" {
		chosen = &all[0]
	}
	for i := range all {
		if &all[i] != chosen {
			all[i].Close()
		}
	}
	if chosen == nil && len(all) > 1 && enrolled.Token == "" {
		return nil, usagef("several agents run on this machine: %s; choose one with --socket-dir", strings.Join(names, ", "))
	}
	return chosen, nil
}

// throughAgent returns a client whose requests a running agent of this machine sends, if
// the enrollment is not this user's to read. Otherwise it returns cause, which is why the
// enrollment was not read.
func (s *settings) throughAgent(a *app, cause error) (agent.Config, *tunnel.Client, error) {
	notHere := errors.Is(cause, agent.ErrNotEnrolled) && s.Config == "" || errors.Is(cause, fs.ErrPermission) && !as[*usageError](cause)
	if !notHere {
		return agent.Config{}, nil, cause
	}
	chosen, err := s.theAgent(context.Background(), a, agent.Config{})
	if err != nil {
		return agent.Config{}, nil, err
	}
	if chosen == nil {
		return agent.Config{}, nil, cause
	}
	client, err := chosen.Panel(chosen.info, tunnel.Options{UserAgent: "eclitunnel/" + version, Wait: a.wait})
	if err != nil {
		return agent.Config{}, nil, err
	}
	a.through = &chosen.info
	return agent.Config{
		PanelURL: chosen.info.Panel, DeviceID: chosen.info.Device, Name: chosen.info.Name,
		Allow: chosen.info.Allow, AllowPorts: chosen.info.AllowPorts,
	}, client, nil
}

// serveLocal lets this user's other commands talk to the agent, until the returned function
// is called. An agent serves its players without it as well. Source is nil for a tunnel
// server.
func (r *running) serveLocal(ctx context.Context, source local.Source) (stop func()) {
	c := r.config
	place := local.Place{Device: c.DeviceID, Owner: c.Owner, Group: r.SocketGroup, Dir: r.settings.SocketDir}
	if place.Dir == "" {
		place.Dir = r.socketDir(r.app, r.settings, c)
	}
	if place.Dir == "" {
		return func() {}
	}
	l, err := local.Listen(ctx, place)
	if err != nil {
		r.log.InfoContext(ctx, "other commands cannot reach this agent", slog.Any("error", err))
		return func() {}
	}
	info := local.Info{
		Device: c.DeviceID, Name: c.Name, Kind: r.kind, Panel: r.client.PanelURL(), Version: version, PID: outerPID(),
		Allow: append(c.Allow, r.Allow...), AllowPorts: append(c.AllowPorts, r.AllowPorts...),
	}
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := local.Serve(ctx, l, local.Options{Info: info, Source: source, Panel: r.client, Logger: r.log}); err != nil {
			r.log.InfoContext(ctx, "other commands cannot reach this agent any more", slog.Any("error", err))
		}
	})
	return func() { cancel(); serving.Wait() }
}

// socketDir returns the directory for the agent's socket, or "" if there is none: the
// common one if root runs the agent for others, and that of its state otherwise.
func (cmd *runCmd) socketDir(a *app, s *settings, c agent.Config) string {
	if runtime.GOOS == "windows" || os.Geteuid() == 0 && cmp.Or(c.Owner, cmd.SocketGroup) != "" {
		return local.CommonDir
	}
	for _, dir := range s.claimDirs(a, cmd.StateDir) {
		return dir
	}
	return ""
}

// outerPID is this process's id, or 0 if it means nothing outside of its container.
func outerPID() int {
	if pid := os.Getpid(); pid != 1 {
		return pid
	}
	return 0
}

// owner returns who enrolls this machine: the user who has called sudo, or on Windows the
// user as whom the command runs. "": nobody but the user as whom the agent will run.
func (a *app) owner() string {
	if runtime.GOOS == "windows" {
		if me, err := user.Current(); err == nil {
			return me.Uid
		}
		return ""
	}
	uid, _ := a.env("SUDO_UID")
	if os.Geteuid() != 0 || uid == "0" || strings.Trim(uid, "0123456789") != "" {
		return ""
	}
	return uid
}
