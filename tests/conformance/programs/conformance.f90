! The conformance program in Fortran; the kit runs it, see ../README.md for what it has to do.
program conformance
  use, intrinsic :: iso_c_binding, only: c_int
  use, intrinsic :: iso_fortran_env, only: int64, real64
  use mpi_f08
  use penstock
  use penstock_mpi
  implicit none

  interface
    function usleep(microseconds) bind(c)
      import :: c_int
      integer(c_int) :: usleep
      integer(c_int), value :: microseconds
    end function usleep
  end interface

  type(penstock_link) :: link
  character(len=16) :: fields
  integer(int64), allocatable :: mine(:)
  integer :: rank, n_ranks, i

  call MPI_Init()
  call MPI_Comm_rank(MPI_COMM_WORLD, rank)
  call MPI_Comm_size(MPI_COMM_WORLD, n_ranks)
  call get_command_argument(2, fields)
  mine = [(int(i, int64), i=4, 0, -1)]
  mine = pack(mine, rank == merge(0, n_ranks - 1, mod(mine, 4_int64) /= 0))
  call run()
  call MPI_Finalize()

contains

  subroutine run()
    type(penstock_simulation) :: sim

    call link%connect(penstock_mpi_ranks(MPI_COMM_WORLD), [penstock_value("steps", 3.0_real64)])
    if (has("u")) call link%layout("u", [6, 4], [1, first(4)], [6, lines(4)])
    if (has("v")) call link%layout("v", [5], mine + 1)
    if (has("w")) call link%layout("w", [5], mine + 1)
    if (has("x")) call link%layout("x", [256, 64], [1, first(64)], [256, lines(64)])
    do while (link%next(sim))
      call solve(sim)
    end do
    call link%close()
  end subroutine run

  subroutine solve(sim)
    type(penstock_simulation), intent(inout) :: sim
    real(real64), allocatable, target :: u(:, :), v(:), w(:)
    real(real64), pointer :: values(:), x(:, :)
    real(real64) :: a, b
    integer :: k, steps, fail_at, lay_at, pause_us, remainder, ignored

    a = sim%parameter("a", 0.0_real64)
    b = sim%parameter("b", 0.0_real64)
    steps = nint(sim%parameter("steps", 42.0_real64))
    fail_at = nint(sim%parameter("fail_at", -1.0_real64))
    lay_at = nint(sim%parameter("lay_at", -1.0_real64))
    pause_us = nint(1e6 * sim%parameter("pause_s", 0.0_real64))
    remainder = int(mod(sim%seed(), 64_int64))
    if (has("v")) then
      v = (1 + remainder) * 2.0_real64**(2 - mine)
      call sim%add("v", v)
      call sim%inputs()
    end if
    do k = 0, steps - 1
      if (k == fail_at) then
        call sim%fail("asked to fail at step " // decimal(k))
        return
      end if
      if (k == lay_at) call link%layout("u", [6, 4], [1, first(4)], [6, lines(4)])
      u = a + 1000 * k + grid(6, 4) + remainder / 64.0_real64
      call sim%add("u", u)
      if (has("w")) then
        w = (-1)**k * b * 2.0_real64**(-mine)
        call sim%add("w", w)
      end if
      if (has("x")) then
        call sim%empty("x", 256 * lines(64), values)
        x(1:256, 1:lines(64)) => values
        x = k + grid(256, 64)
        call sim%add("x", x)
      end if
      if (sim%parameter("timed", 1.0_real64) > 0) then
        call sim%send(k / 100.0_real64)
      else
        call sim%send()
      end if
      ignored = usleep(int(pause_us, c_int))
      if (sim%cancelled()) return
    end do
  end subroutine solve

  logical function has(field)
    character, intent(in) :: field
    has = index(fields, field) > 0
  end function has

  ! This rank's lines of a field of n lines: the first one, from 1, and how many.
  pure integer function first(n)
    integer, intent(in) :: n
    first = n * rank / n_ranks + 1
  end function first

  pure integer function lines(n)
    integer, intent(in) :: n
    lines = n * (rank + 1) / n_ranks - n * rank / n_ranks
  end function lines

  ! The number of each value in the global field, in the order of memory, from 0.
  function grid(width, n)
    integer, intent(in) :: width, n
    real(real64), allocatable :: grid(:, :)
    integer :: column, line

    allocate (grid(width, lines(n)))
    do line = 1, lines(n)
      grid(:, line) = [(real(width * (first(n) + line - 2) + column, real64), column=0, width - 1)]
    end do
  end function grid

  function decimal(number)
    integer, intent(in) :: number
    character(len=:), allocatable :: decimal
    character(len=12) :: written

    write (written, "(i0)") number
    decimal = trim(written)
  end function decimal
end program conformance
