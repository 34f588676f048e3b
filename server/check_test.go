package server_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/oapi-codegen/nullable"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// javaGame answers status requests of Minecraft until close is called.
func javaGame(t *testing.T) (port int, stop func()) {
	t.Helper()
	const status = `{"version":{"name":"1.21.4"},"players":{"max":20,"online":3},"description":"Home"}`
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if _, err := io.ReadAtLeast(conn, make([]byte, 256), 10); err == nil {
				body := append(binary.AppendUvarint([]byte{0}, uint64(len(status))), status...)
				_, _ = conn.Write(append(binary.AppendUvarint(nil, uint64(len(body))), body...))
			}
			_ = conn.Close()
		}
	}()
	stop = func() {
		_ = listener.Close()
		<-done
	}
	t.Cleanup(stop)
	return listener.Addr().(*net.TCPAddr).Port, stop
}

// runDevice runs a device until the function that it returns is called, or the test ends.
func runDevice(t *testing.T, p *servertest.Panel, device servertest.Device, run func(context.Context, *tunnel.Client) error) (stop func()) {
	t.Helper()
	c, err := tunnel.New(tunnel.Options{PanelURL: p.URL, Insecure: true, Token: func() string { return device.Token }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx, c) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		c.Close()
	}
	t.Cleanup(stop)
	return stop
}

func runAgent(t *testing.T, p *servertest.Panel, device servertest.Device) (stop func()) {
	t.Helper()
	return runDevice(t, p, device, func(ctx context.Context, c *tunnel.Client) error {
		a, err := agent.New(agent.Options{Client: c, Version: "1"})
		if err != nil {
			return err
		}
		return a.Run(ctx)
	})
}

func openPort(t *testing.T, admin *client.ClientWithResponses, create types.AllocationCreate) types.Allocation {
	t.Helper()
	created, err := admin.CreateAllocationWithResponse(t.Context(), create)
	if err != nil || created.JSON201 == nil {
		t.Fatalf("%v: %s", err, created.Body)
	}
	return created.JSON201.Allocations[0]
}

func awaitStatus(t *testing.T, admin *client.ClientWithResponses, id int64, status types.AllocationStatus) {
	t.Helper()
	await.Until(t, "the port is "+string(status), func() bool {
		got, err := admin.GetAllocationWithResponse(t.Context(), id)
		return err == nil && got.JSON200 != nil && got.JSON200.Status == status
	})
}

func wantCheck(t *testing.T, admin *client.ClientWithResponses, id int64, want types.CheckOutcome) types.AllocationCheck {
	t.Helper()
	checked, err := admin.CheckAllocationWithResponse(t.Context(), id)
	if err != nil || checked.JSON200 == nil {
		t.Fatalf("%v: %s", err, checked.Body)
	}
	if found := *checked.JSON200; found.Outcome != want {
		t.Errorf("%s, want %s: %s %+v", found.Outcome, want, found.Message, found.Hops)
	}
	return *checked.JSON200
}

func TestCheck_PlaysThePublicPortFromAnotherTunnelServer(t *testing.T) {
	p := servertest.Start(t)
	admin := p.Admin()
	home, elsewhere := p.Enroll("home"), p.EnrollServer("elsewhere", nil)
	runDevice(t, p, elsewhere, func(ctx context.Context, c *tunnel.Client) error {
		s, err := agent.NewTunnelServer(ctx, agent.TunnelServerOptions{
			Client: c, Device: elsewhere.ID, Listen: "127.0.0.1:0", BindHost: "127.0.0.1",
			KeyFile: filepath.Join(t.TempDir(), "key.pem"), Version: "1",
		})
		if err != nil {
			return err
		}
		return s.Run(ctx)
	})
	stopAgent := runAgent(t, p, home)
	var embedded uuid.UUID
	await.Until(t, "all devices are online", func() bool {
		devices, err := admin.ListDevicesWithResponse(t.Context(), nil)
		if err != nil || devices.JSON200 == nil {
			return false
		}
		online := 0
		for _, d := range *devices.JSON200 {
			if d.Online {
				online++
			}
			if d.Name == "embedded" {
				embedded = d.ID
			}
		}
		return online == 3
	})
	local, stopGame := javaGame(t)
	tcp := openPort(t, admin, types.AllocationCreate{DeviceID: &home.ID, ServerID: &embedded, Protocol: types.CreateTCP, LocalPort: local})
	udp := openPort(t, admin, types.AllocationCreate{DeviceID: &home.ID, ServerID: &embedded, Protocol: types.CreateUDP, LocalPort: local})
	awaitStatus(t, admin, tcp.ID, types.AllocationListening)
	awaitStatus(t, admin, udp.ID, types.AllocationListening)

	found := wantCheck(t, admin, tcp.ID, types.CheckReachable)
	if game := found.Game; game == nil || game.Kind != types.GameMinecraftJava || *game.Name != "Home" || *game.Players != 3 || *game.RoundTripMs <= 0 {
		t.Errorf("the game is %+v", game)
	}
	if detail := found.Hops[6].Detail; !strings.Contains(detail, "another tunnel server") {
		t.Errorf("tried: %s", detail)
	}
	wantCheck(t, admin, udp.ID, types.CheckWrongProtocol)

	deny := types.AllocationPatch{Options: &types.AllocationOptions{Deny: nullable.NewNullableWithValue([]string{"127.0.0.0/8", "::1"})}}
	if patched, err := admin.UpdateAllocationWithResponse(t.Context(), tcp.ID, deny); err != nil || patched.JSON200 == nil {
		t.Fatalf("%v: %s", err, patched.Body)
	}
	await.Until(t, "the rule is in effect", func() bool {
		conn, err := net.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(tcp.Port)).String())
		if err != nil {
			return false
		}
		defer conn.Close()
		_, err = conn.Write([]byte("hello"))
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		return err != nil && !errors.Is(err, io.EOF)
	})
	wantCheck(t, admin, tcp.ID, types.CheckRefusedByRules)

	stopGame()
	wantCheck(t, admin, tcp.ID, types.CheckGameNotRunning)
	stopAgent()
	awaitStatus(t, admin, tcp.ID, types.AllocationOffline)
	wantCheck(t, admin, tcp.ID, types.CheckAgentOffline)
	paused := false
	if patched, err := admin.UpdateAllocationWithResponse(t.Context(), tcp.ID, types.AllocationPatch{Enabled: &paused}); err != nil || patched.JSON200 == nil {
		t.Fatalf("%v: %s", err, patched.Body)
	}
	for range 2 {
		wantCheck(t, admin, tcp.ID, types.CheckPaused)
	}
	if limited, err := admin.CheckAllocationWithResponse(t.Context(), tcp.ID); err != nil || limited.StatusCode() != 429 {
		t.Errorf("the seventh check within a minute: %v: %s", err, limited.Body)
	}
}

func TestCheck_ByThePanelAloneAcrossReplicas(t *testing.T) {
	one := servertest.Start(t)
	// Devices are connected to the first replica, and the second one is asked.
	two := servertest.Start(t, func(o *server.Options) {
		o.Database.URL = one.DatabaseURL()
		o.TunnelServer.Disabled = true
	})
	home := one.Enroll("home")
	runAgent(t, one, home)
	admin := two.Admin()
	local, _ := javaGame(t)
	port := openPort(t, admin, types.AllocationCreate{DeviceID: &home.ID, Protocol: types.CreateTCP, LocalPort: local})
	awaitStatus(t, admin, port.ID, types.AllocationListening)
	found := wantCheck(t, admin, port.ID, types.CheckReachable)
	if detail := found.Hops[6].Detail; !strings.Contains(detail, "the panel itself") {
		t.Errorf("tried: %s", detail)
	}
}
