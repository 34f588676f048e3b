//go:build linux

package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

// players play throughout the upgrade.
const players = 20

// TestUpgrade_LosesNoRequestAndNoPlayer replaces three replicas one by one, while
// players play over a stand-alone tunnel server and allocations are made and deleted
// without a pause.
func TestUpgrade_LosesNoRequestAndNoPlayer(t *testing.T) {
	database := startPostgres(t)
	replicas := make([]*replica, 3)
	for i := range replicas {
		replicas[i] = newReplica(t, database, "ECLITUNNEL_SHUTDOWN_GRACE=1s")
		replicas[i].start(t)
	}
	b := startBalancer(t, replicas)
	for i := range replicas {
		awaitBalanced(t, b, i)
	}
	url := "http://" + b.Addr()
	session := logIn(t, url)
	admin := api(t, url, session)
	device := startAgent(t, &cluster.Panel{URL: url, Token: session, API: admin})
	public := listeningPort(t, admin, device, startEcho(t))

	group, ctx := errgroup.WithContext(t.Context())
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var rounds, requests atomic.Int64
	for range players {
		group.Go(func() error { return play(ctx, public, &rounds) })
	}
	group.Go(func() error { return churn(ctx, admin, device, &requests) })

	for i, r := range replicas {
		started := time.Now()
		before := requests.Load()
		check(t, r.Stop())
		if code := r.ExitCode(); code != 0 {
			t.Errorf("replica %d ended with exit code %d", i, code)
		}
		stopped := time.Since(started)
		r.start(t)
		awaitBalanced(t, b, i)
		if err := ctx.Err(); err != nil {
			break // The error is reported below.
		}
		t.Logf("replica %d: stopped after %v, replaced after %v; %d requests meanwhile", i,
			stopped.Round(time.Millisecond), time.Since(started).Round(time.Millisecond), requests.Load()-before)
	}
	stop()
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d players had %d answers, and %d requests succeeded", players, rounds.Load(), requests.Load())
	if rounds.Load() < players || requests.Load() < 10 {
		t.Error("there were hardly any players or requests")
	}
	ctx, stop = context.WithTimeout(t.Context(), 2*time.Second)
	defer stop()
	rounds.Store(-1)
	if err := play(ctx, public, &rounds); err != nil || rounds.Load() < 0 {
		t.Errorf("a new player: %v", err)
	}
}

// startBalancer puts a load balancer before panels that must say in time that they stop.
func startBalancer(t *testing.T, replicas []*replica) *cluster.Balancer {
	t.Helper()
	o := cluster.BalancerOptions{Listen: "127.0.0.1:0"}
	for _, r := range replicas {
		o.Replicas = append(o.Replicas, r.address)
	}
	b, err := cluster.StartBalancer(t.Context(), o)
	check(t, err)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// awaitBalanced waits until the balancer sends requests to a replica.
func awaitBalanced(t *testing.T, b *cluster.Balancer, replica int) {
	t.Helper()
	await.Within(t, patience, "request to the replica", func(context.Context) (bool, error) {
		return slices.Contains(b.Ready(), replica), nil
	})
}

// startAgent starts a tunnel server and an agent in processes of their own, and
// returns the agent's device.
func startAgent(t *testing.T, panel *cluster.Panel) uuid.UUID {
	t.Helper()
	dir := clustertest.Dir(t)
	const ports = 40
	first, err := cluster.FreePorts(t.Context(), ports+1)
	check(t, err)
	server := cluster.NewTunnelServer(binaries, dir, "edge", first, nil)
	check(t, server.EnrollServer(t.Context(), panel, "--port-range", fmt.Sprintf("%d-%d", first+1, first+ports)))
	agent := cluster.NewAgent(binaries, dir, "home", nil)
	check(t, agent.Enroll(t.Context(), panel))
	for _, machine := range []*cluster.Agent{server, agent} {
		process, err := machine.Start()
		check(t, err)
		clustertest.StopAtEnd(t, process)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		check(t, panel.AwaitOnline(ctx, machine.Device.ID, process))
	}
	return agent.Device.ID
}

// listeningPort is the public address of a local port, once players can join.
func listeningPort(t *testing.T, admin *client.ClientWithResponses, device uuid.UUID, port int) string {
	t.Helper()
	made, err := admin.CreateAllocationWithResponse(t.Context(), types.AllocationCreate{
		DeviceID: &device, Protocol: types.CreateTCP, LocalPort: port,
	})
	check(t, err)
	if made.JSON201 == nil {
		t.Fatalf("allocate: %s", made.Body)
	}
	await.Within(t, patience, "listening port", func(ctx context.Context) (bool, error) {
		answer, err := admin.GetAllocationWithResponse(ctx, made.JSON201.ID)
		return err == nil && answer.JSON200 != nil && answer.JSON200.Status == types.AllocationListening, err
	})
	return fmt.Sprintf("127.0.0.1:%d", made.JSON201.Port)
}

// startEcho starts a game that sends back what it gets, and returns its port.
func startEcho(t *testing.T) int {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	check(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				// How it ended the player sees.
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	return listener.Addr().(*net.TCPAddr).Port
}

// play is a player who sends a number and waits for it, again and again until ctx
// ends. An answer that is wrong, late or missing is an error.
func play(ctx context.Context, public string, rounds *atomic.Int64) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", public)
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	defer conn.Close()
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for number := uint64(0); ; number++ {
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		sent := binary.BigEndian.AppendUint64(nil, number)
		got := make([]byte, len(sent))
		if _, err := conn.Write(sent); err != nil {
			return fmt.Errorf("a player is lost: %w", err)
		}
		if _, err := io.ReadFull(conn, got); err != nil {
			return fmt.Errorf("a player is lost: %w", err)
		}
		if !bytes.Equal(got, sent) {
			return fmt.Errorf("a player sent %x and got %x", sent, got)
		}
		rounds.Add(1)
		select {
		case <-pace.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// churn makes and deletes allocations until ctx ends. A request that fails is an
// error.
func churn(ctx context.Context, admin *client.ClientWithResponses, device uuid.UUID, requests *atomic.Int64) error {
	for ctx.Err() == nil {
		// Not with ctx, whose end would fail the one under way.
		made, err := admin.CreateAllocationWithResponse(context.WithoutCancel(ctx), types.AllocationCreate{
			DeviceID: &device, Protocol: types.CreateUDP, LocalPort: 19132,
		})
		if err != nil {
			return fmt.Errorf("allocate: %w", err)
		}
		if made.JSON201 == nil {
			return fmt.Errorf("allocate: %s: %s", made.Status(), made.Body)
		}
		deleted, err := admin.DeleteAllocationWithResponse(context.WithoutCancel(ctx), made.JSON201.ID)
		if err != nil {
			return fmt.Errorf("delete: %w", err)
		}
		if deleted.JSON200 == nil {
			return fmt.Errorf("delete: %s: %s", deleted.Status(), deleted.Body)
		}
		requests.Add(2)
	}
	return nil
}
