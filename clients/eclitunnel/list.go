package main

import (
	"context"
	"fmt"
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
	Target string `arg:"" name:"id-or-port" help:"Id or public port of an allocation, as list shows them; write id:N or port:N if both exist."`
}

func (*closeCmd) Help() string {
	return `Disconnects the players on the port at once. Given a port number, it closes TCP and UDP on that port.`
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

// choose returns the allocations that Target names.
func (cmd *closeCmd) choose(allocations []types.Allocation) ([]types.Allocation, error) {
	number, kind := cmd.Target, ""
	if before, after, ok := strings.Cut(cmd.Target, ":"); ok {
		kind, number = before, after
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || kind != "" && kind != "id" && kind != "port" {
		return nil, usagef("%q is neither the ID of an allocation nor a public port", cmd.Target)
	}
	var byID, byPort []types.Allocation
	servers := map[string]bool{}
	for _, o := range allocations {
		if o.ID == n && kind != "port" {
			byID = append(byID, o)
		}
		if int64(o.Port) == n && kind != "id" {
			byPort = append(byPort, o)
			servers[o.ServerID.String()] = true
		}
	}
	switch {
	case len(byID) > 0 && len(byPort) > 0 && (len(byPort) > 1 || byPort[0].ID != n):
		return nil, usagef("%d is the ID of one allocation and the port of another; write id:%d or port:%d", n, n, n)
	case len(servers) > 1:
		return nil, usagef("port %d is open on several tunnel servers; use the ID", n)
	case len(byID) > 0:
		return byID, nil
	case len(byPort) > 0:
		return byPort, nil
	default:
		return nil, fmt.Errorf("%w: %s", errNoAllocation, cmd.Target)
	}
}
