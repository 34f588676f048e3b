package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

func TestCLI_OpensListsAndClosesAPort(t *testing.T) {
	w, game := sharedFor(t), startEcho(t)
	ctx := within(t, patience)
	allocations := func(args ...string) (list []types.Allocation) {
		t.Helper()
		out, err := w.agent.Run(ctx, append(args, "--json")...)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		return list
	}
	listed := func(id types.AllocationID) bool {
		t.Helper()
		return slices.ContainsFunc(allocations("list"), func(a types.Allocation) bool { return a.ID == id })
	}

	opened := allocations("open", "tcp", strconv.Itoa(game.port), "--name", "survival")
	if len(opened) != 1 || opened[0].Name != "survival" || opened[0].Status != types.AllocationListening {
		t.Fatalf("opened %+v", opened)
	}
	if err := plays(ctx, opened[0].PublicAddress); err != nil {
		t.Error(err)
	}
	if !listed(opened[0].ID) {
		t.Error("what was opened is not listed")
	}
	for _, command := range []string{"list", "status"} {
		if out, err := w.agent.Run(ctx, command); err != nil || !strings.Contains(out, opened[0].PublicAddress) && command == "list" {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
	allocations("close", "id:"+strconv.FormatInt(opened[0].ID, 10))
	if listed(opened[0].ID) {
		t.Error("what was closed is listed")
	}
	await.Within(t, patience, "refused connection", func(ctx context.Context) (bool, error) {
		_, err := new(net.Dialer).DialContext(ctx, "tcp", opened[0].PublicAddress)
		return errors.Is(err, syscall.ECONNREFUSED), nil
	})
}

// Scripts tell these apart by their exit codes, which --help lists.
func TestCLI_ExitCodesTellFailuresApart(t *testing.T) {
	w := sharedFor(t)
	unenrolled := cluster.NewAgent(binaries, t.TempDir(), "unenrolled", nil)
	for name, c := range map[string]struct {
		agent *cluster.Agent
		args  []string
		code  int
	}{
		"no such command":   {w.agent, []string{"dance"}, 2},
		"no such protocol":  {w.agent, []string{"open", "sctp", "1"}, 2},
		"panel unreachable": {unenrolled, []string{"enroll", "--panel", "http://" + loopback(freePort(t))}, 3},
		"not enrolled":      {unenrolled, []string{"list"}, 6},
		"enrolled already":  {w.agent, []string{"enroll", "--panel", w.panel.URL}, 9},
		"no such port":      {w.agent, []string{"close", "port:1"}, 11},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := c.agent.Command(within(t, patience), c.args...)
			out, err := cmd.CombinedOutput()
			if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != c.code || len(out) == 0 {
				t.Errorf("%v, want exit code %d and a reason; it said %q", err, c.code, out)
			}
		})
	}
}
