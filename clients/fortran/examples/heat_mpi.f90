! The heat equation in two dimensions on MPI ranks, streamed from Fortran: second differences and
! implicit Euler, solved by conjugate gradients. A campaign starts it; alone it runs once.
!
!     du/dt = laplace(u)           in the unit square
!     u = T1, T2, T3, T4           on the left, right, bottom and top side, in K; T0 at t = 0
!
! The numbers are those of penstock_solvers.heat_numpy. Field temperature(n, n), in Fortran's order:
! temperature(j, i) is at x = (j - 1) / (n - 1), y = (i - 1) / (n - 1); each rank owns lines of y.
program heat_mpi
  use, intrinsic :: iso_fortran_env, only: real64
  use mpi_f08
  use penstock
  use penstock_mpi
  implicit none

  integer, parameter :: dp = real64
  type(penstock_link) :: link
  type(penstock_simulation) :: sim
  integer :: n, steps, rank, n_ranks, first, lines, k
  real(dp) :: dt
  real(dp), allocatable, target :: u(:, :)  ! (x, own lines of y and one on either side)

  call MPI_Init()
  call MPI_Comm_rank(MPI_COMM_WORLD, rank)
  call MPI_Comm_size(MPI_COMM_WORLD, n_ranks)
  n = nint(option("--n", 32.0_dp))
  steps = nint(option("--steps", 100.0_dp))
  dt = option("--dt", 0.01_dp)
  first = n * rank / n_ranks + 1
  lines = n * (rank + 1) / n_ranks - first + 1
  allocate (u(n, 0:lines + 1))

  call link%connect(penstock_mpi_ranks(MPI_COMM_WORLD), &
                    [penstock_value("T0", 300.0_dp), penstock_value("T1", 350.0_dp), &
                     penstock_value("T2", 250.0_dp), penstock_value("T3", 400.0_dp), &
                     penstock_value("T4", 150.0_dp)])
  call link%layout("temperature", [n, n], start=[1, first], extent=[n, lines])
  do while (link%next(sim))
    call begin(sim)
    do k = 1, steps
      call advance()
      call sim%add("temperature", u(:, 1:lines))
      call sim%send(k * dt)
      if (sim%cancelled()) exit
    end do
  end do
  call link%close()
  call MPI_Finalize()

contains

  ! T0 inside, the sides on the boundary; a corner takes the mean of its two sides.
  subroutine begin(sim)
    type(penstock_simulation), intent(in) :: sim
    real(dp) :: left, right, bottom, top

    left = sim%parameter("T1")
    right = sim%parameter("T2")
    bottom = sim%parameter("T3")
    top = sim%parameter("T4")
    u = sim%parameter("T0")
    u(1, :) = left
    u(n, :) = right
    if (first == 1) u(:, 1) = [(left + bottom) / 2, spread(bottom, 1, n - 2), (right + bottom) / 2]
    if (first + lines - 1 == n) &
      u(:, lines) = [(left + top) / 2, spread(top, 1, n - 2), (right + top) / 2]
  end subroutine begin

  ! One implicit Euler step: A u = u_old on the inner nodes, from u_old on.
  subroutine advance()
    real(dp), dimension(n, 0:lines + 1) :: p
    real(dp), dimension(n, lines) :: r, ap
    real(dp) :: rr, rr_new, goal, alpha

    call exchange(u)
    r = 0
    call apply(u, ap)
    call inner(r, u(:, 1:lines) - ap)
    goal = 1e-24_dp * dot(u(:, 1:lines), u(:, 1:lines))
    rr = dot(r, r)
    p = 0
    p(:, 1:lines) = r
    do while (rr > goal)
      call exchange(p)
      call apply(p, ap)
      alpha = rr / dot(p(:, 1:lines), ap)
      u(:, 1:lines) = u(:, 1:lines) + alpha * p(:, 1:lines)
      r = r - alpha * ap
      rr_new = dot(r, r)
      p(:, 1:lines) = r + rr_new / rr * p(:, 1:lines)
      rr = rr_new
    end do
  end subroutine advance

  ! v - dt laplace(v) on the inner nodes, 0 elsewhere.
  subroutine apply(v, av)
    real(dp), intent(in) :: v(n, 0:lines + 1)
    real(dp), intent(out) :: av(n, lines)
    real(dp) :: weight
    integer :: i

    weight = dt * (n - 1)**2
    av = 0
    do i = max(1, 3 - first), min(lines, n - first)
      av(2:n - 1, i) = (1 + 4 * weight) * v(2:n - 1, i) &
        - weight * (v(1:n - 2, i) + v(3:n, i) + v(2:n - 1, i - 1) + v(2:n - 1, i + 1))
    end do
  end subroutine apply

  ! Takes the inner nodes over, and leaves the boundary.
  subroutine inner(to, from)
    real(dp), intent(inout) :: to(n, lines)
    real(dp), intent(in) :: from(n, lines)
    integer :: i

    do i = max(1, 3 - first), min(lines, n - first)
      to(2:n - 1, i) = from(2:n - 1, i)
    end do
  end subroutine inner

  ! The lines beside this rank's own, from its neighbours.
  subroutine exchange(v)
    real(dp), intent(inout) :: v(n, 0:lines + 1)
    integer :: below, above

    below = merge(rank - 1, MPI_PROC_NULL, rank > 0)
    above = merge(rank + 1, MPI_PROC_NULL, rank < n_ranks - 1)
    call MPI_Sendrecv(v(:, 1), n, MPI_DOUBLE_PRECISION, below, 0, v(:, lines + 1), n, &
                      MPI_DOUBLE_PRECISION, above, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE)
    call MPI_Sendrecv(v(:, lines), n, MPI_DOUBLE_PRECISION, above, 1, v(:, 0), n, &
                      MPI_DOUBLE_PRECISION, below, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE)
  end subroutine exchange

  real(dp) function dot(a, b)
    real(dp), intent(in) :: a(n, lines), b(n, lines)
    dot = sum(a * b)
    call MPI_Allreduce(MPI_IN_PLACE, dot, 1, MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD)
  end function dot

  ! The number behind a name on the command line.
  real(dp) function option(name, otherwise)
    character(len=*), intent(in) :: name
    real(dp), intent(in) :: otherwise
    character(len=64) :: argument
    integer :: i

    option = otherwise
    do i = 1, command_argument_count() - 1
      call get_command_argument(i, argument)
      if (argument /= name) cycle
      call get_command_argument(i + 1, argument)
      read (argument, *) option
    end do
  end function option
end program heat_mpi
