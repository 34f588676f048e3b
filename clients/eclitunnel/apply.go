package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// maxReplays is how often a tunnel can be created by apply, and deleted again, within the time for which the panel
// remembers an Idempotency-Key.
const maxReplays = 64

type applyCmd struct {
	File    string `short:"f" required:"" env:"-" placeholder:"FILE" help:"File that says which ports there are, - for standard input: YAML or JSON."`
	DryRun  bool   `env:"-" help:"Show what would change and change nothing (default: false)."`
	Prune   bool   `env:"-" help:"Delete the ports that an earlier apply has made and that are not in the file any more. Other ports are never deleted (default: false)."`
	Replace bool   `env:"-" help:"Delete and create again what cannot be changed: the protocol, the public port, the number of neighbouring ports. It disconnects the players on it (default: false)."`
	Set     string `env:"-" placeholder:"STRING" help:"Name of this file's set of ports. Files with different sets leave each other's ports alone (default: none)."`
}

func (*applyCmd) Help() string {
	return `The file has a name for each tunnel. A port with this name is changed where it differs, and created if there is none:

    tunnels:
      minecraft:
        protocol: tcp            # tcp, udp or tcp+udp
        local: 25565             # PORT, HOST:PORT or neighbouring ports, 2456-2458
        publicPort: 25565        # Any, if left out.
        server: 9b1d7c52-3a84-4f6e-8d20-5c7e1a94b3f0   # The id of a tunnel server.
        enabled: true            # Left out, a paused port stays paused.
        labels: { game: minecraft }
        options: { proxyProtocol: v2, maxPlayers: 20 }  # As in the panel's API.

Options and labels that are left out are the defaults. Applying the same file again changes nothing. If one tunnel cannot be applied, the others still are. The ports get the label managed-by: apply, and with --set the label apply-set.`
}

// Run implements the command.
func (cmd *applyCmd) Run(ctx context.Context, a *app, s *settings) error {
	if cmd.File == "-" && s.TokenFile == "-" {
		return usagef("--file and --token-file cannot both be read from standard input")
	}
	file, err := readApplyFile(cmd.File, a.stdin)
	if err != nil {
		return err
	}
	c, client, err := s.device(a)
	if err != nil {
		return err
	}
	defer client.Close()
	allocations, err := client.Allocations(ctx)
	if err != nil {
		return err
	}
	steps, left := newPlanner(cmd.Set, allocations).plan(file, cmd.Prune)
	run := &applyRun{cmd: cmd, app: a, json: s.JSON, client: client, device: c.DeviceID, before: allocations}
	var ended error
	for _, step := range steps {
		if ended = run.step(ctx, step); ended != nil {
			break
		}
	}
	run.warn(c, steps)
	if left > 0 {
		a.warnf("%d made by an earlier apply and not in the file; delete with --prune", left)
	}
	if s.JSON {
		if err := a.printJSON(steps); err != nil {
			return err
		}
	}
	if ended != nil {
		return ended
	}
	if !s.JSON {
		a.printf("%s", summary(steps, cmd.DryRun))
	}
	return run.judge(steps)
}

// applyRun carries out the steps of an apply.
type applyRun struct {
	cmd    *applyCmd
	app    *app
	json   bool
	client *tunnel.Client
	device uuid.UUID
	before []types.Allocation // All of the device.
}

// step carries out a step and reports it, or only reports it. It returns an error only if that ends the whole.
func (r *applyRun) step(ctx context.Context, s *step) error {
	if s.Allocations == nil {
		s.Allocations = []types.Allocation{} // A list in JSON.
	}
	if !r.json && s.Action != actNothing {
		r.app.printf("%s", s.line())
		for _, d := range s.Differences {
			r.app.printf("    %s: %s -> %s", d.Field, valueText(d.From), valueText(d.To))
		}
	}
	blocked := s.Action == actReplace && !r.cmd.Replace
	switch {
	case s.Action == actNothing:
		return nil
	case blocked:
		s.Error = "this needs another port: add --replace to delete it and create it again"
	case r.cmd.DryRun:
		return nil
	default:
		if s.err = r.carryOut(ctx, s); s.err == nil {
			s.Done = true
			if !r.json && (s.Action == actCreate || s.Action == actReplace) {
				words := "players join at"
				if !s.Allocations[0].Enabled {
					words = "paused, at"
				}
				r.app.printf("    %s %s", words, addressOf(s.Allocations))
			}
			return nil
		}
		if interrupted(s.err) || code(types.CodeUnauthorized, types.CodeTokenRevoked, types.CodeDeviceDeleted, types.CodeFeatureDisabled)(s.err) || as[*tunnel.UnreachableError](s.err) {
			return fmt.Errorf("apply %s: %w", s.Name, s.err) // The next ones would end the same.
		}
		s.Error = s.err.Error()
	}
	if !r.json {
		r.app.warnf("eclitunnel: %s: %s", s.Name, s.Error)
	}
	return nil
}

func (r *applyRun) carryOut(ctx context.Context, s *step) error {
	switch s.Action {
	case actCreate:
		return r.create(ctx, s)
	case actDelete:
		return r.delete(ctx, s.Allocations)
	case actChange:
		return r.change(ctx, s)
	}
	old := s.Allocations
	if s.want.overlaps(old) { // Otherwise the game keeps its port until it has another one.
		if err := r.delete(ctx, old); err != nil {
			return err
		}
		return r.create(ctx, s)
	}
	if err := r.create(ctx, s); err != nil {
		return err
	}
	return r.delete(ctx, old)
}

func (r *applyRun) delete(ctx context.Context, allocations []types.Allocation) error {
	for _, o := range allocations {
		if err := r.client.DeleteAllocation(ctx, o.ID); err != nil && !tunnel.HasCode(err, types.CodeNotFound) {
			return fmt.Errorf("delete %s %s: %w", o.Protocol, o.PublicAddress, err)
		}
	}
	return nil
}

func (r *applyRun) change(ctx context.Context, s *step) error {
	for i, patch := range s.patches {
		if patch == (types.AllocationPatch{}) {
			continue
		}
		changed, err := r.client.UpdateAllocation(ctx, s.Allocations[i].ID, patch)
		if err != nil {
			return fmt.Errorf("change %s %s: %w", s.Allocations[i].Protocol, s.Allocations[i].PublicAddress, err)
		}
		s.Allocations[i] = changed
	}
	return nil
}

// create creates the tunnel of a step. The Idempotency-Key is made of what is created: if the answer to a request was
// lost, or the request is still under way, the next apply gets what that one creates and makes no second one. The panel
// repeats such an answer for a day, also if the allocation has been deleted since; then there is another key.
func (r *applyRun) create(ctx context.Context, s *step) error {
	request, err := s.want.request()
	if err != nil {
		return err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	for attempt := range maxReplays {
		key := sha256.Sum256(fmt.Appendf(nil, "%s %d %s", r.device, attempt, body))
		created, err := r.client.CreateAllocation(ctx, request, tunnel.IdempotencyKey("apply-"+base64.RawURLEncoding.EncodeToString(key[:])))
		switch {
		case tunnel.HasCode(err, types.CodeIdempotencyAnswerLost):
			return fmt.Errorf("it may have been created; apply again to see: %w", err)
		case err != nil:
			return err
		case len(created) == 0 || slices.ContainsFunc(r.before, func(o types.Allocation) bool { return sameAllocation(o, created[0]) }):
			continue // An earlier apply has created it, and it has another name now.
		}
		switch now, err := r.client.Allocation(ctx, created[0].ID); {
		case tunnel.HasCode(err, types.CodeNotFound): // It was created by an earlier apply, and deleted.
			continue
		case err != nil:
			return err
		default:
			created[0] = now
			s.Allocations = created
			return nil
		}
	}
	return fmt.Errorf("it was created and deleted %d times within a day", maxReplays)
}

// warn warns of local targets that the agent does not permit.
func (r *applyRun) warn(c agent.Config, steps []*step) {
	for _, s := range steps {
		if s.Action == actDelete || s.Action == actNothing {
			continue
		}
		if request, err := s.want.request(); err == nil {
			r.app.warnAllow(c, request)
		}
	}
}

// judge returns the error of the whole.
func (r *applyRun) judge(steps []*step) error {
	failed, differs := 0, false
	for _, s := range steps {
		if s.Action != actNothing {
			differs = true
		}
		if s.Error != "" {
			failed++
		}
	}
	switch {
	case r.cmd.DryRun && differs:
		return errDiffers
	case failed > 0:
		return fmt.Errorf("%w: %d of %d", errIncomplete, failed, len(steps))
	}
	return nil
}

// summary counts the steps.
func summary(steps []*step, dryRun bool) string {
	counts := map[action]int{}
	failed := 0
	for _, s := range steps {
		if s.Error != "" {
			failed++
			continue
		}
		counts[s.Action]++
	}
	words := map[action]string{actCreate: "created", actChange: "changed", actReplace: "replaced", actDelete: "deleted", actNothing: "unchanged"}
	if dryRun {
		words = map[action]string{actCreate: "to create", actChange: "to change", actReplace: "to replace", actDelete: "to delete", actNothing: "unchanged"}
	}
	var parts []string
	for _, act := range []action{actCreate, actChange, actReplace, actDelete, actNothing} {
		if n := counts[act]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, words[act]))
		}
	}
	if failed > 0 {
		parts = append(parts, fmt.Sprintf("%d not possible", failed))
	}
	if len(parts) == 0 {
		return "The file has no tunnels."
	}
	return strings.Join(parts, ", ") + "."
}

// addressOf returns the public address of a tunnel, with all its ports.
func addressOf(allocations []types.Allocation) string {
	first, last := allocations[0], allocations[len(allocations)-1]
	return first.PublicAddress + through(first.Port, last.Port-first.Port)
}
