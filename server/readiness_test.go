package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// freeAddress returns an address for a panel whose address must be known before it
// is ready.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// launch runs a panel until the test ends, does not wait until it is ready, and
// returns its address.
func launch(t *testing.T, o server.Options) (address string) {
	t.Helper()
	o.Listen = freeAddress(t)
	panel, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- panel.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return o.Listen
}

// statusOf returns the status of a response, or 0 if there is none.
func statusOf(t *testing.T, url string) int {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestPanel_IsAliveAndNotReadyUntilTheDatabaseIsMigrated(t *testing.T) {
	url := dbtest.URL(t)
	migrating, err := dbtest.SQL(t, dbtest.Open(t, url)).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer migrating.Rollback() //nolint:errcheck // releases the connection
	if _, err := migrating.ExecContext(t.Context(), `LOCK TABLE goose_db_version`); err != nil {
		t.Fatal(err)
	}
	address := launch(t, server.Options{Database: server.Database{URL: url}, TunnelServer: server.TunnelServer{Disabled: true}})

	controltest.Eventually(t, "alive", func() bool { return statusOf(t, "http://"+address+"/healthz") == http.StatusOK })
	for _, path := range []string{"/readyz", "/api/tunnel/devices", "/api/tunnel/ws"} {
		if got := statusOf(t, "http://"+address+path); got != http.StatusServiceUnavailable {
			t.Errorf("%s while it starts: %d", path, got)
		}
	}
	if err := migrating.Rollback(); err != nil {
		t.Fatal(err)
	}
	controltest.Eventually(t, "ready", func() bool { return statusOf(t, "http://"+address+"/readyz") == http.StatusOK })
}

func TestPanel_WaitsForTheDatabase(t *testing.T) {
	url := dbtest.URL(t)
	// This connection keeps its settings, unlike new ones.
	admin, err := dbtest.SQL(t, dbtest.Open(t, url)).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	var name string
	if err := admin.QueryRowContext(t.Context(), `SELECT current_database()`).Scan(&name); err != nil {
		t.Fatal(err)
	}
	alter := func(what string) {
		t.Helper()
		if _, err := admin.ExecContext(t.Context(), fmt.Sprintf(`ALTER DATABASE %q %s`, name, what)); err != nil {
			t.Fatal(err)
		}
	}
	// As during a failover: the server responds but accepts no writes.
	alter("SET default_transaction_read_only = on")
	var log testlog.Buffer
	address := launch(t, server.Options{
		Database: server.Database{URL: url}, TunnelServer: server.TunnelServer{Disabled: true},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	controltest.Eventually(t, "it waits", func() bool { return strings.Contains(log.String(), "waiting for the database") })
	if got := statusOf(t, "http://"+address+"/healthz"); got != http.StatusOK {
		t.Errorf("alive meanwhile: %d", got)
	}
	alter("RESET default_transaction_read_only")
	controltest.Eventually(t, "ready", func() bool { return statusOf(t, "http://"+address+"/readyz") == http.StatusOK })
}

func TestPanel_StopsWhileItWaitsForTheDatabase(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // Accepts connections and sends nothing.
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	address := freeAddress(t)
	panel, err := server.New(server.Options{
		Database: server.Database{URL: fmt.Sprintf("postgres://x@%s/x?sslmode=disable", silent.Addr())},
		Listen:   address,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- panel.Run(ctx) }()
	controltest.Eventually(t, "alive", func() bool { return statusOf(t, "http://"+address+"/healthz") == http.StatusOK })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := statusOf(t, "http://"+address+"/healthz"); got != 0 {
		t.Errorf("answers %d once it has ended", got)
	}
}

func TestPanel_StopsCleanlyDespiteASlowCaller(t *testing.T) {
	p := servertest.Start(t, func(o *server.Options) { o.ShutdownTimeout = 8 * time.Second })
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := "POST /api/auth/login HTTP/1.1\r\nHost: panel\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n"
	if _, err := conn.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	// The panel asks for the body, so it is processing the request.
	if answer, err := bufio.NewReader(conn).ReadString('\n'); err != nil || answer != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q, %v", answer, err)
	}
	p.Stop() // Fails the test if the panel does not stop cleanly.
}

func TestPanel_KeepsServingDuringTheShutdownGrace(t *testing.T) {
	p := servertest.Start(t, func(o *server.Options) { o.ShutdownGrace = time.Second })
	session := p.Login()
	device := p.Enroll("gaming-rig")
	agent := p.Connect(device)
	controltest.Next[types.ClientSnapshot](agent)

	p.Leave()
	controltest.Eventually(t, "not ready", func() bool { return statusOf(t, p.URL+"/readyz") == http.StatusServiceUnavailable })
	resp, err := p.Client(session).CreateAllocationWithResponse(t.Context(), types.AllocationCreate{
		DeviceID: &device.ID, Protocol: types.CreateTCP, LocalPort: 25565,
	})
	if err != nil || resp.JSON201 == nil {
		t.Fatalf("a request within the grace period: %v %s", err, resp.Body)
	}
	if !resp.HTTPResponse.Close {
		t.Error("the caller may reuse the connection")
	}
	if got := controltest.Next[types.ClientChange](agent); len(got.Allocations) != 1 {
		t.Errorf("change %+v", got)
	}

	p.Stop()
	if code := agent.Closed(controltest.Patience); code != channel.CloseRestarting {
		t.Errorf("channel closed with %d", code)
	}
	_, err = net.Dial("tcp", strings.TrimPrefix(p.URL, "http://"))
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connecting once it has ended: %v", err)
	}
}
