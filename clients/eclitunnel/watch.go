package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/agent/local"
	"github.com/eclitunnel/eclitunnel/clients/eclitunnel/internal/face"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// watchInterval is the wait between two looks for an agent that has ended.
const watchInterval = 2 * time.Second

// errNoAgent is the error of commands that need a running agent.
var errNoAgent = errors.New("no agent runs on this machine; start it with: eclitunnel run")

type watchCmd struct {
	Plain bool `help:"Print lines instead of a picture, as where standard output is no terminal (default: false)."`
}

func (*watchCmd) Help() string {
	return `Shows the agent that runs on this machine, in a terminal or as a service: its public ports with their games, players and traffic, and what happened lately. In a terminal it draws a picture in place; otherwise it prints a line for each event, and with --json a snapshot a line.

It ends at SIGINT (Ctrl-C), SIGTERM and SIGHUP, with exit code 0. When the agent ends, it waits for the next one.`
}

// Run implements the command.
func (cmd *watchCmd) Run(ctx context.Context, a *app, s *settings) error {
	v := &watcher{app: a, settings: s}
	if !s.JSON {
		v.picture = a.newPicture(cmd.Plain)
	}
	chosen, err := v.find(ctx)
	switch {
	case err != nil:
		return err
	case chosen == nil:
		return errNoAgent
	case chosen.info.Kind == types.DeviceKindServer:
		chosen.Close()
		return usagef("this machine's agent is a tunnel server, which has no ports of its own to watch; see: eclitunnel status")
	}
	if v.picture == nil {
		return v.watch(ctx, chosen, v.show())
	}
	return v.picture.follow(ctx, func(ctx context.Context, show func(agent.Snapshot) error) error {
		return v.watch(ctx, chosen, show)
	})
}

// watcher shows one agent after another.
type watcher struct {
	*app
	settings *settings
	picture  *picture  // nil: lines.
	noted    time.Time // The last note that was printed.
}

// find returns the agent of this machine, or nil: that of the enrollment, if this user can
// read it.
func (v *watcher) find(ctx context.Context) (*found, error) {
	enrolled, err := v.settings.identity(v.app)
	if err != nil {
		enrolled = agent.Config{}
	}
	return v.settings.theAgent(ctx, v.app, enrolled)
}

// watch shows an agent, and the next ones, until ctx ends.
func (v *watcher) watch(ctx context.Context, chosen *found, show func(agent.Snapshot) error) error {
	for {
		err := chosen.Watch(ctx, show)
		chosen.Close()
		if err != nil && !errors.Is(err, local.ErrGone) {
			return err
		}
		chosen = nil
		if ctx.Err() == nil {
			v.ended()
		}
		for chosen == nil {
			if ctx.Err() != nil {
				return nil
			}
			if chosen, err = v.find(ctx); err != nil || chosen == nil {
				if v.wait(ctx, watchInterval) != nil {
					return nil
				}
			}
		}
	}
}

// ended says that the agent has ended.
func (v *watcher) ended() {
	switch {
	case v.picture != nil:
		v.picture.without("the agent has ended; waiting for it")
	case !v.settings.JSON:
		v.printf("%s  the agent has ended; waiting for it", time.Now().Format(time.TimeOnly))
	}
}

// show prints snapshots as JSON or in lines.
func (v *watcher) show() func(agent.Snapshot) error {
	if v.settings.JSON {
		return func(s agent.Snapshot) error { return v.printJSON(s) }
	}
	return v.lines
}

// lines prints what is new in a snapshot: at first the state of all ports, and then notes.
func (v *watcher) lines(s agent.Snapshot) error {
	if v.noted.IsZero() {
		v.printf("%s  %s", s.Time.Local().Format(time.TimeOnly), panelLine(s))
		for _, p := range s.Tunnels {
			v.printf("%s  %s", s.Time.Local().Format(time.TimeOnly), portLine(p))
		}
		v.noted = s.Time
	}
	for _, n := range s.Notes {
		if n.Time.After(v.noted) {
			v.printf("%s  %s", n.Time.Local().Format(time.TimeOnly), n.Text)
			v.noted = n.Time
		}
	}
	return nil
}

func panelLine(s agent.Snapshot) string {
	label := deviceLabel(s.Device.Name, s.Device.ID)
	switch {
	case s.Panel.Standby:
		return label + " stands by: another agent of this device took over"
	case s.Panel.Connected:
		return fmt.Sprintf("%s is connected to %s", label, s.Panel.URL)
	case s.Panel.Reason != "":
		return fmt.Sprintf("%s is not connected to the panel: %s", label, s.Panel.Reason)
	default:
		return fmt.Sprintf("%s connects to %s", label, s.Panel.URL)
	}
}

func portLine(p agent.PortView) string {
	line := fmt.Sprintf("%s: %s, %s %s -> %s", p.Label(), face.StateWords(p.State), p.Protocol, p.PublicAddress, p.LocalAddress)
	if reason := face.Reason(p); reason != "" {
		line += ": " + reason
	}
	if p.Players > 0 {
		line += fmt.Sprintf(" (%d playing)", p.Players)
	}
	return line
}
