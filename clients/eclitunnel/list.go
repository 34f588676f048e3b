package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

type listCmd struct{}

// Run implements the command.
func (*listCmd) Run(ctx context.Context, a *app, s *settings) error {
	_, client, err := s.device(a)
	if err != nil {
		return err
	}
	defer client.Close()
	allocations, err := client.Allocations(ctx)
	if err != nil {
		return err
	}
	if s.JSON {
		return a.printJSON(allocations)
	}
	if len(allocations) == 0 {
		a.printf("No ports are open. Open one with: eclitunnel open tcp PORT")
		return nil
	}
	a.printAllocations(allocations)
	return nil
}

// printAllocations prints allocations as a table.
func (a *app) printAllocations(allocations []types.Allocation) {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "ID\tPROTOCOL\tPUBLIC ADDRESS\tLOCAL TARGET\tSTATUS\tNAME")
	for _, o := range allocations {
		status := string(o.Status)
		if reason, err := o.StatusReason.Get(); err == nil && reason != "" {
			status += " (" + reason + ")"
		}
		_, _ = fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n",
			escapeAll([]any{o.ID, o.Protocol, o.PublicAddress, localAddress(o), status, o.Name})...)
	}
	_ = w.Flush()
}

type closeCmd struct {
	Target string `arg:"" name:"id-port-or-name" help:"Id, public port or name of an allocation, as list shows them; write id:N, port:N or name:NAME if several match."`
}

func (*closeCmd) Help() string {
	return `Disconnects the players on the port at once. Given a port number or a name, it closes TCP and UDP on that port.`
}

// Run implements the command.
func (cmd *closeCmd) Run(ctx context.Context, a *app, s *settings) error {
	_, client, err := s.device(a)
	if err != nil {
		return err
	}
	defer client.Close()
	allocations, err := client.Allocations(ctx)
	if err != nil {
		return err
	}
	chosen, err := cmd.choose(allocations)
	if err != nil {
		return err
	}
	for _, o := range chosen {
		if err := client.DeleteAllocation(ctx, o.ID); err != nil {
			return fmt.Errorf("close %s %s: %w", o.Protocol, o.PublicAddress, err)
		}
		if !s.JSON {
			a.printf("closed %s %s", o.Protocol, o.PublicAddress)
		}
	}
	if s.JSON {
		return a.printJSON(chosen)
	}
	return nil
}

// choose returns the allocations that Target names, which are on one public port.
func (cmd *closeCmd) choose(allocations []types.Allocation) ([]types.Allocation, error) {
	kind, text, ok := strings.Cut(cmd.Target, ":")
	if !ok || kind != "id" && kind != "port" && kind != "name" {
		kind, text = "", cmd.Target // A name may contain a colon.
	}
	n, err := strconv.ParseInt(text, 10, 64)
	var chosen []types.Allocation
	var forms []string
	ambiguous := false
	for _, form := range []struct {
		kind  string
		names func(types.Allocation) bool
	}{
		{"id", func(o types.Allocation) bool { return err == nil && o.ID == n }},
		{"port", func(o types.Allocation) bool { return err == nil && int64(o.Port) == n }},
		{"name", func(o types.Allocation) bool { return text != "" && o.Name == text }},
	} {
		found := slices.DeleteFunc(slices.Clone(allocations), func(o types.Allocation) bool { return !form.names(o) })
		if len(found) == 0 || kind != "" && kind != form.kind {
			continue
		}
		ambiguous = ambiguous || chosen != nil && !slices.EqualFunc(chosen, found, sameAllocation)
		chosen, forms = found, append(forms, form.kind+":"+text)
	}
	switch {
	case ambiguous:
		return nil, usagef("%q can mean several allocations; write %s", cmd.Target, strings.Join(forms, " or "))
	case slices.ContainsFunc(chosen, func(o types.Allocation) bool { return o.Port != chosen[0].Port || o.ServerID != chosen[0].ServerID }):
		return nil, usagef("%q is on several ports or tunnel servers; use the ID", cmd.Target)
	case len(chosen) > 0:
		return chosen, nil
	case text == "" || err == nil && n < 1 && kind != "name" || err != nil && (kind == "id" || kind == "port"):
		return nil, usagef("%q is neither the ID, the public port nor the name of an allocation", cmd.Target)
	default:
		return nil, fmt.Errorf("%w: %s", errNoAllocation, cmd.Target)
	}
}

func sameAllocation(a, b types.Allocation) bool { return a.ID == b.ID }
