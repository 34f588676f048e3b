package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// startDatagramEcho is a game that sends back datagrams, on the UDP port of a number.
func startDatagramEcho(t *testing.T, port int) {
	t.Helper()
	conn, err := net.ListenPacket("udp", loopback(port))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for b := make([]byte, 2048); ; {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(b[:n], from)
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
}

// counting are players of an echo, who count what they send: it comes back.
type counting struct {
	t         *testing.T
	public    string
	bytes     int64
	datagrams int64
	joins     int64 // A datagram after an answer makes one of UDP a player.
	tcp       net.Conn
	udp       net.Conn
}

// join brings a player of TCP and one of UDP.
func (c *counting) join() {
	c.t.Helper()
	awaitPlay(c.t, patience, c.public)
	c.bytes += 8 // awaitPlay's player.
	c.joins += 3 // That one too.
	c.tcp = join(c.t, c.public)
	udp, err := net.Dial("udp", c.public)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { udp.Close() })
	c.udp = udp
}

// play sends and receives bytes of a stream and datagrams.
func (c *counting) play(bytes, datagrams int) {
	c.t.Helper()
	for _, conn := range []net.Conn{c.tcp, c.udp} {
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			c.t.Fatal(err)
		}
	}
	sent := make(chan error, 1)
	go func() {
		_, err := c.tcp.Write(make([]byte, bytes))
		sent <- err
	}()
	if _, err := io.CopyN(io.Discard, c.tcp, int64(bytes)); err != nil {
		c.t.Fatal(err)
	}
	if err := <-sent; err != nil {
		c.t.Fatal(err)
	}
	c.bytes += int64(bytes)
	const length = 700
	for b := make([]byte, length); datagrams > 0; datagrams-- {
		if _, err := c.udp.Write(b); err != nil {
			c.t.Fatal(err)
		}
		if _, err := c.udp.Read(b); err != nil {
			c.t.Fatalf("a datagram is lost: %v", err)
		}
		c.bytes += length
		c.datagrams++
	}
}

// usage returns the sums of all usage by a resolution.
func (w *world) usage(ctx context.Context, resolution types.UsageResolution) (types.UsageSums, error) {
	answer, err := w.panel.API.GetUsageWithResponse(ctx, &types.GetUsageParams{DeviceID: &w.agent.Device.ID, Resolution: &resolution})
	switch {
	case err != nil:
		return types.UsageSums{}, err
	case answer.JSON200 == nil:
		return types.UsageSums{}, fmt.Errorf("%s: %s", answer.Status(), answer.Body)
	case len(answer.JSON200.Series) == 0:
		return types.UsageSums{}, nil
	}
	return answer.JSON200.Series[0].Totals, nil
}

// awaitUsage waits until the panel has added up what players have counted.
func (w *world) awaitUsage(t *testing.T, c *counting) {
	t.Helper()
	want := types.UsageSums{
		DownloadBytes: c.bytes, UploadBytes: c.bytes, DownloadDatagrams: c.datagrams, UploadDatagrams: c.datagrams, Joins: c.joins,
	}
	for _, resolution := range []types.UsageResolution{"minute", "hour", "day"} {
		var got types.UsageSums
		var err error
		defer func() {
			if t.Failed() {
				t.Logf("by %s the usage is %+v (%v), want %+v", resolution, got, err, want)
			}
		}()
		await.Within(t, time.Minute, "usage that is what players counted", func(ctx context.Context) (bool, error) {
			got, err = w.usage(ctx, resolution)
			got.PeakPlayers = 0
			return got == want, nil
		})
	}
}

func TestUsage_IsWhatPlayersCounted(t *testing.T) {
	w, game := ownFleet(t), startEcho(t)
	startDatagramEcho(t, game.port)
	c := &counting{t: t, public: w.expose(t, types.CreateTCPUDP, game.port, nil)}
	c.join()
	c.play(3_000_000, 20)
	w.awaitUsage(t, c) // While both play on.

	// What is counted while panel and Postgres are dead is not lost.
	c.play(1_000_000, 7)
	w.darken(t)
	c.play(500_000, 5)
	if err := w.panel.Restart(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	c.play(70_000, 3)
	w.awaitUsage(t, c)

	// Nor if the tunnel server is stopped before they are back.
	w.darken(t)
	c.play(9000, 2)
	if err := w.serving.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := w.panel.Restart(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.serving, err = w.server.Start(); err != nil {
		t.Fatal(err)
	}
	w.awaitUsage(t, c)

	// A tunnel server that is killed loses what it has not reported, and counts nothing twice.
	c.join()
	c.play(100_000, 4)
	w.awaitUsage(t, c)
	if err := w.serving.Kill(); err != nil {
		t.Fatal(err)
	}
	if w.serving, err = w.server.Start(); err != nil {
		t.Fatal(err)
	}
	c.join()
	c.play(20_000, 2)
	w.awaitUsage(t, c)
}
