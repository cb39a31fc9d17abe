package redistest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// slots is the number of hash slots of any Redis Cluster.
const slots = 16384

// StartCluster runs n masters that share the slots, and waits until each of
// them calls the cluster whole.
func StartCluster(tb testing.TB, n int, args ...string) []*Server {
	tb.Helper()
	nodes := make([]*Server, n)
	for i := range nodes {
		_, busPort, _ := net.SplitHostPort(freeAddr(tb))
		nodes[i] = Start(tb, append([]string{
			"--cluster-enabled", "yes", "--cluster-port", busPort, "--cluster-node-timeout", "2000",
		}, args...)...)
		nodes[i].MustDo("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*slots/n), strconv.Itoa((i+1)*slots/n-1))
		if i > 0 {
			host, port, _ := net.SplitHostPort(nodes[i].addr)
			nodes[0].MustDo("CLUSTER", "MEET", host, port, busPort)
		}
	}
	for _, node := range nodes {
		Wait(tb, startTimeout, "the cluster to form", func() error {
			info, err := node.Do("CLUSTER", "INFO")
			if err != nil {
				return err
			}
			text, _ := info.(string)
			if !strings.Contains(text, "cluster_state:ok") || !strings.Contains(text, fmt.Sprintf("cluster_known_nodes:%d", n)) {
				return errors.New(text)
			}
			return nil
		})
	}
	return nodes
}

// Replicated is a master, its replica, and a sentinel that watches over them.
type Replicated struct {
	Master, Replica, Sentinel *Server
	// Name is what the sentinel calls the master.
	Name string
}

// StartReplicated runs a master with one replica under one sentinel, which
// promotes the replica a second after it last heard from the master.
func StartReplicated(tb testing.TB, args ...string) *Replicated {
	tb.Helper()
	r := &Replicated{Name: "main"}
	r.Master = Start(tb, args...)
	host, port, _ := net.SplitHostPort(r.Master.addr)
	r.Replica = Start(tb, append([]string{"--replicaof", host + " " + port, "--repl-diskless-sync-delay", "0"}, args...)...)

	conf := filepath.Join(tb.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor %[1]s %[2]s %[3]s 1\nsentinel down-after-milliseconds %[1]s 1000\nsentinel failover-timeout %[1]s 5000\n",
		r.Name, host, port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	r.Sentinel = &Server{tb: tb, dir: tb.TempDir(), addr: freeAddr(tb), conf: conf}
	tb.Cleanup(r.Sentinel.Kill)
	r.Sentinel.Run()

	Wait(tb, startTimeout, "the replica to follow its master", func() error {
		info, err := r.Replica.Do("INFO", "replication")
		if text, _ := info.(string); err == nil && !strings.Contains(text, "master_link_status:up") {
			err = errors.New(text)
		}
		return err
	})
	Wait(tb, startTimeout, "the sentinel to know the replica", func() error {
		list, err := r.Sentinel.Do("SENTINEL", "REPLICAS", r.Name)
		if replicas, _ := list.([]any); err == nil && len(replicas) != 1 {
			err = fmt.Errorf("it knows %d", len(replicas))
		}
		return err
	})
	return r
}
