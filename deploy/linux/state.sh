#!/bin/sh
# What a machine is, and what slows or hastens a run on it now, as NAME=VALUE lines.
# For Linux and Android (toybox) alike; what a machine hides is left out. A value may come several
# times: one per core, thermal zone or supply.

root=${1:-} # of /proc and /sys: for tests

each() { # NAME FILE...: the first line of every file that can be read
  name=$1; shift
  for file in "$@"; do
    { read -r line < "$file"; } 2>/dev/null && echo "$name=$line"
  done
}

echo "architecture=$(uname -m)"
if command -v getprop >/dev/null 2>&1; then
  echo "system=Android $(getprop ro.build.version.release), $(uname -sr)"
  echo "processor=$(getprop ro.soc.manufacturer) $(getprop ro.soc.model)"
  echo "model=$(getprop ro.product.manufacturer) $(getprop ro.product.model)"
fi
echo "system=$(uname -sr)"
[ -r "$root"/proc/device-tree/model ] && echo "model=$(tr -d '\0' < "$root"/proc/device-tree/model)"
sed -n 's/^model name[[:space:]]*:/processor=/p' "$root"/proc/cpuinfo 2>/dev/null | head -n 1
[ -r "$root"/proc/device-tree/compatible ] && # the board, then what it is made of: "brcm,bcm2711"
  echo "processor=$(tr '\0' '\n' < "$root"/proc/device-tree/compatible | tail -n 1)"
sed -n 's/^\(Hardware\|Model\)[[:space:]]*:/processor=/p' "$root"/proc/cpuinfo 2>/dev/null | head -n 1
sed -n 's/^\(flags\|Features\)[[:space:]]*:/flags=/p' "$root"/proc/cpuinfo 2>/dev/null | head -n 1
sed -n 's/^MemTotal:[[:space:]]*\([0-9]*\).*/memory_kb=\1/p' "$root"/proc/meminfo 2>/dev/null
echo "cores=$(nproc 2>/dev/null || grep -c ^processor "$root"/proc/cpuinfo)"
for file in "$root"/sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq; do
  core=${file#"$root"/sys/devices/system/cpu/cpu}
  each core_khz "$file" | sed "s/=/=${core%%/*} /"
done

read -r load rest < "$root"/proc/loadavg 2>/dev/null && echo "load=$load"
each governor "$root"/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor
each frequency_khz "$root"/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq
each temperature_mc "$root"/sys/class/thermal/thermal_zone*/temp
each battery_percent "$root"/sys/class/power_supply/[Bb]*/capacity
each battery_status "$root"/sys/class/power_supply/[Bb]*/status
each current_ua "$root"/sys/class/power_supply/[Bb]*/current_now
each voltage_uv "$root"/sys/class/power_supply/[Bb]*/voltage_now
if command -v vcgencmd >/dev/null 2>&1; then
  vcgencmd get_throttled 2>/dev/null | sed -n 's/^throttled=/throttled=/p'
fi
if command -v dumpsys >/dev/null 2>&1; then # what /sys hides from Android's shell
  dumpsys thermalservice 2>/dev/null | sed -n \
    -e 's/^Thermal Status: \([0-9]*\).*/thermal_status=\1/p' \
    -e '/^Current temperatures/,$ s/.*Temperature{mValue=\([0-9.]*\), mType=[03],.*/temperature_mc=\1e3/p'
    # CPU and skin now; above stand the last events' of before
  dumpsys battery 2>/dev/null | sed -n \
    -e 's/^ *level: \([0-9]*\).*/battery_percent=\1/p' \
    -e 's/^ *temperature: \([0-9]*\).*/temperature_mc=\1e2/p' \
    -e 's/^ *status: 2.*/battery_status=Charging/p' \
    -e 's/^ *status: 3.*/battery_status=Discharging/p' \
    -e 's/^ *status: 4.*/battery_status=Not charging/p' \
    -e 's/^ *status: 5.*/battery_status=Full/p'
fi
exit 0
