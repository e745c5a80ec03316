// Checks a compose file without an engine: `go run . ../../deploy/compose.yaml`.
//
// It is read as Compose reads it: schema, references between services, networks and volumes. Then every service has to be
// hardened, every image that is built has to be a stage of its Dockerfile, and what `deploy/prepare` is told, what the
// programs are started with and what Prometheus asks have to be of one mind.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v4"
)

// A program's private listener is this far above its public one: deploy/prepare.
const privateOffset = 400

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: compose FILE")
		os.Exit(2)
	}
	faults, err := check(os.Args[1])
	if err != nil {
		faults = append(faults, err.Error())
	}
	for _, fault := range faults {
		fmt.Fprintln(os.Stderr, fault)
	}
	if len(faults) > 0 {
		os.Exit(1)
	}
	fmt.Println(os.Args[1], "ok")
}

func check(path string) ([]string, error) {
	options, err := cli.NewProjectOptions([]string{path})
	if err != nil {
		return nil, err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return nil, err
	}
	var faults []string
	for name, service := range project.Services {
		for _, fault := range append(exposed(service), unbuildable(service)...) {
			faults = append(faults, name+": "+fault)
		}
	}
	return append(faults, atOdds(project)...), nil
}

// What a service may do that it should not.
func exposed(service types.ServiceConfig) []string {
	user, _, _ := strings.Cut(service.User, ":")
	id, err := strconv.Atoi(user)
	published := func(port types.ServicePortConfig) bool { return port.HostIP != "127.0.0.1" }
	return said(map[string]bool{
		"runs as root, or as whoever the image says": err != nil || id == 0,
		"its root file system is not read-only":      !service.ReadOnly,
		"it keeps capabilities":                      !slices.Equal(service.CapDrop, []string{"ALL"}) || len(service.CapAdd) > 0,
		"it may gain privileges":                     !slices.Contains(service.SecurityOpt, "no-new-privileges:true") || service.Privileged,
		"its memory has no bound":                    service.MemLimit == 0,
		"its processes have no bound":                service.PidsLimit == 0,
		"its log has no bound":                       service.Logging == nil || service.Logging.Options["max-size"] == "",
		"a port is published beyond this machine":    slices.ContainsFunc(service.Ports, published),
		"its image has neither tag nor build":        service.Build == nil && !strings.Contains(service.Image, ":"),
	})
}

// Whether what a service is built from is not there.
func unbuildable(service types.ServiceConfig) []string {
	if service.Build == nil {
		return nil
	}
	path := filepath.Join(service.Build.Context, service.Build.Dockerfile)
	text, err := os.ReadFile(path)
	stage := regexp.MustCompile(`(?m)^FROM .* AS ` + regexp.QuoteMeta(service.Build.Target) + `$`)
	return said(map[string]bool{path + " has no such stage: " + service.Build.Target: err != nil || !stage.Match(text)})
}

// Where what is prepared, what runs and what is asked differ.
func atOdds(project *types.Project) []string {
	var faults []string
	asked, err := targets(project)
	if err != nil {
		return []string{err.Error()}
	}
	command := project.Services["prepare"].Command
	for i, argument := range command[:max(len(command)-1, 0)] {
		code, address, config := "", command[i+1], "gateway/gateway.toml"
		switch argument {
		case "--data":
			faults = append(faults, said(map[string]bool{
				"prepare: the gateway's data is not at " + address + " there too": !shares(project, "gateway", "prepare", address),
			})...)
			continue
		case "--node":
			code, address, _ = strings.Cut(address, "=")
			config = "node/" + code + "/node.toml"
		case "--gateway":
		default:
			continue
		}
		host, text, _ := strings.Cut(address, ":")
		port, _ := strconv.Atoi(text)
		private := fmt.Sprintf("%s:%d", host, port+privateOffset)
		service := project.Services[host]
		faults = append(faults, said(map[string]bool{
			host + ": it is not started with " + config:   !slices.Contains(service.Command, config),
			host + ": it does not see its configuration":  !mounts(service, filepath.Dir(config)),
			host + ": Prometheus does not ask " + private: !asked[private],
		})...)
		delete(asked, private)
	}
	for address := range asked {
		faults = append(faults, "Prometheus asks "+address+", where nobody is")
	}
	if len(command) == 0 {
		faults = append(faults, "nothing is prepared")
	}
	return faults
}

// Whether a service sees this part of the state, and reads it alone.
func mounts(service types.ServiceConfig, part string) bool {
	return slices.ContainsFunc(service.Volumes, func(volume types.ServiceVolumeConfig) bool {
		return volume.Source == "state" && volume.Volume != nil && volume.Volume.Subpath == part &&
			volume.Target == "/etc/tongxing/"+part && volume.ReadOnly
	})
}

// Whether two services have the same volume at one place, and may write there.
func shares(project *types.Project, one, other, at string) bool {
	source := func(name string) string {
		for _, volume := range project.Services[name].Volumes {
			if volume.Target == at && !volume.ReadOnly {
				return volume.Source
			}
		}
		return ""
	}
	return source(one) != "" && source(one) == source(other)
}

// Whom Prometheus asks.
func targets(project *types.Project) (map[string]bool, error) {
	text, err := os.ReadFile(filepath.Join(project.WorkingDir, "prometheus.yml"))
	if err != nil {
		return nil, err
	}
	var config struct {
		Jobs []struct {
			Static []struct {
				Targets []string `yaml:"targets"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return nil, err
	}
	asked := map[string]bool{}
	for _, job := range config.Jobs {
		for _, static := range job.Static {
			for _, target := range static.Targets {
				asked[target] = true
			}
		}
	}
	return asked, nil
}

// The faults that hold.
func said(faults map[string]bool) []string {
	var holding []string
	for fault, holds := range faults {
		if holds {
			holding = append(holding, fault)
		}
	}
	slices.Sort(holding)
	return holding
}
