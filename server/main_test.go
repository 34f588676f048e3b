package server_test

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/server/acmetest"
)

func TestMain(m *testing.M) { dbtest.Main(m, acmetest.Background()) }
