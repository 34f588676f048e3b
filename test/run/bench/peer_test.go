//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

// standIn, in the environment, is the address of a game that this binary is.
const standIn = "BENCH_TEST_STAND_IN"

func playStandIn(addr string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	game, err := traffic.Listen(ctx, addr)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return game.Close()
}

// script writes a program that starts a peer, whose server is one process and whose
// client another, which is the game where players come.
func script(t *testing.T, client string) string {
	t.Helper()
	self, err := os.Executable()
	check(t, err)
	path := filepath.Join(t.TempDir(), "peer")
	text := fmt.Sprintf("#!/bin/sh\nsleep 600 & server=$!\n%s & client=$!\ntrap 'kill $server $client' TERM\nwait; wait\n", strings.ReplaceAll(client, "SELF", self))
	check(t, os.WriteFile(path, []byte(text), 0o700))
	return path
}

func TestPeer_StartsAndEndsWithTheBench(t *testing.T) {
	o := options{Game: "127.0.0.1:0", Subjects: []string{"other"}, Peers: []peer{
		{"other", script(t, standIn+"=$HOST:$PUBLIC_PORT $AT_HOME SELF")},
	}}
	f, err := startField(t.Context(), o, loopbackCable())
	check(t, err)
	s := f.subjects[0]
	if s.name != "other" || len(s.pids) != 2 || len(s.uplink) != 1 || s.uplink[0].direction != toPort {
		t.Errorf("%+v", s)
	}
	if times, err := traffic.Echo(t.Context(), s.tcp, 100*time.Millisecond, 0); err != nil || len(times) == 0 {
		t.Errorf("%v, %v", times, err)
	}
	if times, err := traffic.EchoDatagrams(t.Context(), s.udp, 100*time.Millisecond, 0); err != nil || len(times) == 0 || times[0] >= traffic.LostAfter {
		t.Errorf("%v, %v", times, err)
	}
	check(t, f.close())
	for _, pid := range s.pids {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d is still there: %v", pid, err)
		}
	}
}

func TestPeer_ThatEndsSaysWhy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peer")
	check(t, os.WriteFile(path, []byte("#!/bin/sh\necho connection refused\n"), 0o700))
	o := options{Game: "127.0.0.1:0", Subjects: []string{"other"}, Peers: []peer{{"other", path}}}
	if _, err := startField(t.Context(), o, loopbackCable()); err == nil || !strings.Contains(err.Error(), "start other") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a peer that ends: %v", err)
	}
	o.Peers[0].Path += "x"
	if _, err := startField(t.Context(), o, loopbackCable()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such program: %v", err)
	}
}
