package openfiles_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/openfiles"
)

func TestBudget_LeavesFilesForOthers(t *testing.T) {
	var log bytes.Buffer
	b := openfiles.NewBudget(256, slog.New(slog.NewTextHandler(&log, nil)))
	fill := func(allocation int64) (taken int) {
		for b.Take(allocation, 2) {
			taken += 2
		}
		return taken
	}
	first, second, third := fill(1), fill(2), fill(3)
	if first != 96 || second != 48 || third != 24 { // Of 192.
		t.Errorf("allocations got %d, %d and %d files", first, second, third)
	}
	if fill(1) != 0 {
		t.Error("the first allocation got more while others have files")
	}
	if n := strings.Count(log.String(), "allocationId=1 "); n != 1 {
		t.Errorf("%d lines about the first allocation", n)
	}
	for range first / 2 {
		b.Give(1, 2)
	}
	if again := fill(2); again == 0 {
		t.Error("files given back are nobody's")
	}
}

func TestBudget_WithoutALimitRefusesNothing(t *testing.T) {
	b := openfiles.NewBudget(0, slog.New(slog.DiscardHandler))
	for range 100_000 {
		if !b.Take(1, 2) {
			t.Fatal("refused")
		}
	}
}

func TestShare_IsNeverAll(t *testing.T) {
	for limit, want := range map[int]int{0: 0, 16: 1, 64: 32, 256: 192, 1024: 768, 20_000: 17_952} {
		if got := openfiles.Share(limit); got != want {
			t.Errorf("of %d files players may take %d, want %d", limit, got, want)
		}
	}
}
