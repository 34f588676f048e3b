//go:build linux

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

func TestAccount_FindsBytesThatAreMissingOrCountedTwice(t *testing.T) {
	sums := func(upload, download int64) types.UsageSums {
		return types.UsageSums{UploadBytes: upload, DownloadBytes: download}
	}
	for _, c := range []struct {
		usage types.UsageSums
		wrong string
	}{
		{sums(100, 201), ""},
		{sums(105, 207), ""},
		{sums(99, 201), "upload of 99 bytes"},
		{sums(106, 201), "upload of 106 bytes"},
		{sums(100, 200), "download of 200 bytes"},
		{sums(100, 208), "download of 208 bytes"},
	} {
		a := new(account)
		a.add(traffic.Carried{UploadLeast: 100, UploadMost: 100, DownloadLeast: 200, DownloadMost: 200})
		a.add(traffic.Carried{UploadMost: 5, DownloadLeast: 1, DownloadMost: 7}) // One who was cut off.
		if _, _, got := a.settle(c.usage); (got == "") != (c.wrong == "") || !strings.HasPrefix(got, c.wrong) {
			t.Errorf("%d up and %d down: %q, want %q", c.usage.UploadBytes, c.usage.DownloadBytes, got, c.wrong)
		}
		if _, _, got := a.settle(c.usage); got != "" {
			t.Errorf("once it was compared: %q", got)
		}
		c.usage.UploadBytes++
		if _, _, got := a.settle(c.usage); !strings.HasPrefix(got, "upload of 1 bytes") {
			t.Errorf("counted after it was compared: %q", got)
		}
	}
}

func TestUsage_ForgivesWhatKilledTunnelServersHadNotReported(t *testing.T) {
	now := time.Now()
	carried := traffic.Carried{UploadLeast: 10, UploadMost: 10, DownloadLeast: 10, DownloadMost: 10}
	lost := func(before func(*usage), killed, other *device) uint64 {
		p := &port{server: killed}
		for _, ago := range []time.Duration{100, 40, 20, 5} {
			p.account.rows = append(p.account.rows, carriedAt{now.Add(-ago * time.Second), carried})
		}
		u := new(usage)
		u.open(p)
		before(u)
		u.killed(other, now)
		u.killed(killed, now)
		u.killed(killed, now) // Nothing is lost twice.
		return p.account.lost.upload
	}
	for _, c := range []struct {
		name string
		want uint64
		mute func(*usage)
	}{
		{"reports flow", 10, func(*usage) {}},
		{"reports have waited for 30 s", 30, func(u *usage) { u.mute(now.Add(-30 * time.Second)) }},
		{"reports waited until just now", 30, func(u *usage) {
			u.mute(now.Add(-30 * time.Second))
			u.unmute(now.Add(-time.Second))
		}},
		{"reports waited, and wait again", 30, func(u *usage) {
			u.mute(now.Add(-30 * time.Second))
			u.unmute(now.Add(-6 * time.Second))
			u.mute(now.Add(-4 * time.Second))
		}},
		{"reports waited long ago", 10, func(u *usage) {
			u.mute(now.Add(-30 * time.Second))
			u.unmute(now.Add(-10 * time.Second))
		}},
	} {
		if got := lost(c.mute, new(device), new(device)); got != c.want {
			t.Errorf("%s: %d bytes may be lost, want %d", c.name, got, c.want)
		}
	}
}
